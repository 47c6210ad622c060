from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.interests import Interests
from serendipity.channel.recall.pool import Pool, UserVectors, gather
from serendipity.channel.recall.query import SOURCES, RecallQuery, source_name
from serendipity.channel.recall.search import CANDIDATE_SOURCES
from serendipity.channel.recall.sources import NO_INTEREST, CandidateSource
from serendipity.channel.recall.sources import collaborative as collaborative_module
from serendipity.channel.recall.sources import interest as interest_module
from serendipity.channel.recall.sources.collaborative import CollaborativeSource
from serendipity.channel.recall.sources.interest import InterestSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import DAY, DIM, NOW, NUM_ITEMS, SmallWorld

I2I, U2I = pb.SOURCE_INTEREST, pb.SOURCE_COLLABORATIVE

SEARCHED_BY_VECTORS = [source for source in CANDIDATE_SOURCES if source.source in (I2I, U2I)]
"""Sources whose raw score is an inner product with a vector of the tower."""


@pytest.fixture
def user_id(small_world: SmallWorld) -> str:
    return max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))


@pytest.fixture
def user(snapshot: Snapshot, user_id: str) -> Hydrated:
    return read(snapshot, user_id)


def read(snapshot: Snapshot, user_id: str, now: int = NOW, **fields: object) -> Hydrated:
    query = RecallQuery(user_id=user_id, count=10, now=now, **fields)  # type: ignore[arg-type]
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, UserState(), ChannelSettings())


def some_vectors(interests: Interests, fallback: bool = False) -> UserVectors:
    rows = np.random.default_rng(0).normal(size=(1 + len(interests), DIM)).astype(np.float32)
    if fallback:
        stored = UserVectors.stored(rows[0], len(interests))
        assert stored is not None
        return stored
    return UserVectors(rows, fallback=False)


def everything_for(user: Hydrated, vectors: UserVectors, snapshot: Snapshot) -> Pool:
    """Every item of the catalogue, whoever proposed it."""
    return gather(dict.fromkeys(SOURCES, np.arange(NUM_ITEMS)), vectors, user, snapshot)


def nearest(snapshot: Snapshot, rows: NDArray[np.int64], vector: NDArray[np.float32]) -> list[int]:
    """Those that are in stock, by sorting, nearest first."""
    available = [row for row in rows.tolist() if not snapshot.unavailable[row]]
    return sorted(available, key=lambda row: -float(snapshot.vectors.vectors[row] @ vector))


def rows_of(interests: Interests, interest: int) -> NDArray[np.int64]:
    mine = interests.grounded.owners == interest
    pieces = zip(interests.grounded.starts[mine].tolist(), interests.grounded.ends[mine].tolist(), strict=True)
    return np.concatenate([np.arange(start, end) for start, end in pieces])


def test_the_sources_are_listed_in_one_order() -> None:
    assert tuple(source.source for source in CANDIDATE_SOURCES) == SOURCES
    assert [source_name(source) for source in SOURCES] == ["interest", "collaborative", "group", "graph"]


@pytest.mark.parametrize("source", SEARCHED_BY_VECTORS, ids=lambda source: source_name(source.source))
@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("wanted", [1, 10, 1_000])
def test_every_source_proposes_only_what_may_be_shown(
    snapshot: Snapshot, user: Hydrated, source: CandidateSource, fallback: bool, wanted: int
) -> None:
    proposed = source.propose(snapshot, user, some_vectors(user.interests, fallback), wanted)
    assert len(proposed) > 0
    assert set(proposed.tolist()) <= set(user.ranges.rows().tolist())
    assert not snapshot.unavailable[proposed].any()


@pytest.mark.parametrize("source", CANDIDATE_SOURCES, ids=lambda source: source_name(source.source))
def test_every_source_proposes_nothing_where_nothing_may_be_shown(
    snapshot: Snapshot, user_id: str, source: CandidateSource
) -> None:
    user = read(snapshot, user_id, allow_categories=("no such category",))
    if source.has_queries(user):
        assert len(source.propose(snapshot, user, some_vectors(user.interests), 10)) == 0


@pytest.mark.parametrize("source", SEARCHED_BY_VECTORS, ids=lambda source: source_name(source.source))
@pytest.mark.parametrize("fallback", [False, True])
def test_raw_scores_are_the_best_inner_products_with_the_vectors_of_the_source(
    snapshot: Snapshot, user: Hydrated, source: CandidateSource, fallback: bool
) -> None:
    vectors = some_vectors(user.interests, fallback)
    pool = everything_for(user, vectors, snapshot)
    finds = source.score(pool, user, fallback)
    at = np.flatnonzero(finds.found)
    assert len(at) > 0
    queries = vectors.rows[1:] if source.source == pb.SOURCE_INTEREST else vectors.rows[:1]
    expected = (snapshot.vectors.vectors[pool.rows[at]] @ queries.T).max(axis=1)
    np.testing.assert_allclose(finds.raw[at], expected, rtol=1e-5, atol=1e-6)
    assert len(finds.found) == len(finds.raw) == len(finds.interests) == len(pool)


def without_popular(snapshot: Snapshot) -> Snapshot:
    return with_popular(snapshot, [])


def with_popular(snapshot: Snapshot, rows: list[int]) -> Snapshot:
    """A snapshot in which these were clicked most lately, in this order."""
    popular = np.array(rows, np.int64)
    numbers = snapshot.categories_of(popular + 1).astype(np.int64)
    return replace(snapshot, merge=replace(snapshot.merge, popular=popular, popular_categories=numbers))


@pytest.mark.parametrize("wanted", [1, 7, 40])
@pytest.mark.parametrize("blocked", [0, 9])
def test_collaborative_proposes_the_nearest_items_of_novel_categories_and_spares_for_interests(
    snapshot: Snapshot, user: Hydrated, wanted: int, blocked: int
) -> None:
    vectors = some_vectors(user.interests)
    # What may be found and not returned is found besides.
    user = replace(user, excluded=np.arange(blocked // 3), served=np.arange(blocked - blocked // 3))
    proposed = CollaborativeSource().propose(without_popular(snapshot), user, vectors, wanted)
    best = nearest(snapshot, user.ranges.rows(), vectors.rows[0])
    assert sorted(proposed.tolist()) == sorted(best[: collaborative_module._SPARE * wanted + blocked])
    assert set(best[:wanted]) <= set(proposed.tolist())


@pytest.mark.parametrize("blocked", [0, 4])
def test_collaborative_proposes_the_most_clicked_items_that_may_be_shown_as_well(
    snapshot: Snapshot, user: Hydrated, blocked: int
) -> None:
    vectors = some_vectors(user.interests)
    order = np.random.default_rng(2).permutation(snapshot.category_offsets[-1]).tolist()
    user = replace(user, served=np.arange(blocked))
    for wanted in (1, 5, 30):
        near = CollaborativeSource().propose(without_popular(snapshot), user, vectors, wanted)
        proposed = CollaborativeSource().propose(with_popular(snapshot, order), user, vectors, wanted)
        assert len(set(proposed.tolist())) == len(proposed)
        shown = set(user.ranges.rows().tolist())
        popular = [row for row in order if row in shown and not snapshot.unavailable[row]][: wanted + blocked]
        assert set(proposed.tolist()) == set(near.tolist()) | set(popular)
    # What is sold out or in no category of theirs is not proposed however popular it is.
    nobody = with_popular(snapshot, [int(row) for row in np.flatnonzero(snapshot.unavailable) if row < 390])
    assert CollaborativeSource().propose(nobody, user, vectors, 5).tolist() == sorted(
        CollaborativeSource().propose(without_popular(snapshot), user, vectors, 5).tolist()
    )


def test_collaborative_ranks_what_it_proposed_and_scores_all_by_the_user_alone(
    snapshot: Snapshot, user: Hydrated
) -> None:
    vectors = some_vectors(user.interests)
    every, mine = np.arange(NUM_ITEMS), np.arange(0, NUM_ITEMS, 3)
    for proposed, found in (({I2I: every, U2I: mine}, mine.tolist()), ({I2I: every}, [])):
        pool = gather(proposed, vectors, user, snapshot)
        finds = CollaborativeSource().score(pool, user, fallback=False)
        assert pool.rows[finds.found].tolist() == found
        np.testing.assert_array_equal(finds.raw, pool.scores[:, 0])
        assert set(finds.interests.tolist()) == {NO_INTEREST}


@pytest.mark.parametrize("blocked", [0, 2])
def test_interest_proposes_the_nearest_of_the_rows_each_interest_is_grounded_in(
    snapshot: Snapshot, user: Hydrated, monkeypatch: pytest.MonkeyPatch, blocked: int
) -> None:
    monkeypatch.setattr(interest_module, "_LEAST", 5)
    vectors = some_vectors(user.interests)
    user = replace(user, served=np.arange(blocked))
    for wanted, share in ((1, 5), (15, 5), (24, 8), (1_000, 333)):
        proposed = InterestSource().propose(snapshot, user, vectors, wanted).tolist()
        expected: set[int] = set()
        for i in range(len(user.interests)):
            expected |= set(nearest(snapshot, rows_of(user.interests, i), vectors.rows[1 + i])[: share + blocked])
        assert set(proposed) == expected


def test_interest_proposes_a_bounded_share_per_interest(snapshot: Snapshot, user: Hydrated) -> None:
    for wanted, most in ((2, 64), (192, 64), (300, 100)):
        proposed = set(InterestSource().propose(snapshot, user, some_vectors(user.interests), wanted).tolist())
        for i in range(len(user.interests)):
            assert len(proposed & set(rows_of(user.interests, i).tolist())) <= most


def leads(raw: NDArray[np.float32], grounded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The nearest interest that each row is grounded in, or else the nearest. raw, grounded: [m, k]."""
    return np.where(grounded.any(axis=1), np.where(grounded, raw, -np.inf).argmax(axis=1), raw.argmax(axis=1))


def test_each_row_goes_to_the_nearest_interest_it_is_grounded_in_whoever_proposed_it(
    snapshot: Snapshot, user: Hydrated
) -> None:
    vectors = some_vectors(user.interests)
    pool = everything_for(user, vectors, snapshot)
    finds = InterestSource().score(pool, user, fallback=False)
    nobodys = InterestSource().score(replace(pool, proposed_by={}), user, fallback=False)
    assert finds.found.all()
    assert nobodys.found.all()
    by_interest = snapshot.vectors.vectors @ vectors.rows[1:].T
    assert finds.interests.tolist() == leads(by_interest, pool.grounded).tolist()
    # One that is grounded in none goes to the nearest.
    assert set(finds.interests[~pool.grounded.any(axis=1)].tolist()) == set(range(len(user.interests)))
    assert len(set(finds.interests.tolist())) == len(user.interests)


def test_stored_vectors_find_only_grounded_rows(snapshot: Snapshot, user: Hydrated) -> None:
    vectors = some_vectors(user.interests, fallback=True)
    pool = everything_for(user, vectors, snapshot)
    finds = InterestSource().score(pool, user, fallback=True)
    grounded = [rows_of(user.interests, i) for i in range(len(user.interests))]
    assert set(pool.rows[finds.found].tolist()) == set(np.concatenate(grounded).tolist())
    for i, rows in enumerate(grounded):
        assert set(pool.rows[finds.found & (finds.interests == i)].tolist()) <= set(rows.tolist())


def test_feedback_moves_the_scores_above_zero_of_what_an_interest_led_to(snapshot: Snapshot, user: Hydrated) -> None:
    vectors = some_vectors(user.interests)
    pool = everything_for(user, vectors, snapshot)
    pool.scores[:20] = -np.abs(pool.scores[:20])
    factors = np.ones(len(user.interests), np.float32)
    factors[0], factors[1] = 0.25, 1.5
    moved = replace(user, interests=replace(user.interests, factors=factors))
    before, after = (InterestSource().score(pool, each, fallback=False) for each in (user, moved))
    each = pool.scores[:, 1:] * np.where(pool.scores[:, 1:] > 0, factors, 1)
    np.testing.assert_allclose(after.raw, each.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(after.interests, leads(each, pool.grounded))
    # An item may now be there for another interest, and one that is far from all stays as far.
    assert ((before.interests == 0) & (after.interests != 0)).any()
    assert ((before.interests != 1) & (after.interests == 1)).any()
    np.testing.assert_array_equal(after.raw[:20], before.raw[:20])


def test_feedback_and_stored_vectors_together_find_only_grounded_rows(snapshot: Snapshot, user: Hydrated) -> None:
    vectors = some_vectors(user.interests, fallback=True)
    pool = everything_for(user, vectors, snapshot)
    factors = np.linspace(0.25, 2, len(user.interests), dtype=np.float32)
    moved = replace(user, interests=replace(user.interests, factors=factors))
    finds = InterestSource().score(pool, moved, fallback=True)
    assert finds.found.tolist() == pool.grounded.any(axis=1).tolist()
    assert pool.grounded[finds.found, finds.interests[finds.found]].all()


def test_states_tell_how_old_the_interests_are(snapshot: Snapshot, user_id: str, user: Hydrated) -> None:
    assert InterestSource().state_of(user) == pb.SOURCE_STATE_OK
    assert InterestSource().state_of(read(snapshot, user_id, NOW + 8 * DAY)) == pb.SOURCE_STATE_STALE
    assert CollaborativeSource().state_of(read(snapshot, user_id, NOW + 8 * DAY)) == pb.SOURCE_STATE_OK


def test_without_interests_there_is_nothing_to_search_by(snapshot: Snapshot, user_id: str, user: Hydrated) -> None:
    assert InterestSource().has_queries(user)
    assert not InterestSource().has_queries(read(snapshot, user_id, allow_categories=("no such category",)))
    assert CollaborativeSource().has_queries(user)
