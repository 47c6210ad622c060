from __future__ import annotations

import numpy as np
import pytest

from serendipity.channel.recall.candidates import NO_INTEREST
from serendipity.channel.recall.hydrate import Hydrated, Interests, hydrate
from serendipity.channel.recall.query import RecallQuery, Source
from serendipity.channel.recall.recall import SOURCES
from serendipity.channel.recall.recalled import SourceState
from serendipity.channel.recall.sources import CandidateSource, UserVectors
from serendipity.channel.recall.sources.collaborative import CollaborativeSource
from serendipity.channel.recall.sources.interest import InterestSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Snapshot, SnapshotHolder
from serendipity.channel.state.state import EmptyUserState
from tests.fixtures.small_world import DAY, DIM, NOW, SmallWorld

SEARCHED_BY_VECTORS = [source for source in SOURCES if source.source is not Source.GROUP]
"""Sources whose raw score is an inner product, in a snapshot that need not have groups."""


@pytest.fixture
def user_id(small_world: SmallWorld) -> str:
    return max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))


@pytest.fixture
def user(snapshot: Snapshot, user_id: str) -> Hydrated:
    return read(snapshot, user_id)


def read(snapshot: Snapshot, user_id: str, now: int = NOW) -> Hydrated:
    query = RecallQuery(user_id=user_id, count=10, now=now)
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, EmptyUserState(), ChannelSettings())


def some_vectors(interests: Interests, fallback: bool = False) -> UserVectors:
    rng = np.random.default_rng(0)
    user = rng.normal(size=DIM).astype(np.float32)
    if fallback:
        return UserVectors(user, np.broadcast_to(user, (len(interests), DIM)), fallback=True)
    return UserVectors(user, rng.normal(size=(len(interests), DIM)).astype(np.float32), fallback=False)


@pytest.mark.parametrize("source", SEARCHED_BY_VECTORS, ids=lambda source: source.source.name)
@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("requested", [1, 10, 1_000])
def test_every_source_stays_inside_what_may_be_shown(
    snapshot: Snapshot, user: Hydrated, source: CandidateSource, fallback: bool, requested: int
) -> None:
    vectors = some_vectors(user.interests, fallback)
    found = source.find(snapshot.vectors, user, vectors, requested)
    assert len(found) > 0
    assert set(found.rows.tolist()) <= set(user.ranges.rows().tolist())
    assert not snapshot.unavailable[found.rows].any()
    assert set(found.sources.tolist()) == {source.source}
    queries = np.concatenate([vectors.interests, vectors.user[None]])
    expected = np.einsum("nd,nd->n", snapshot.vectors.vectors[found.rows], queries[found.interests])
    np.testing.assert_allclose(found.raw, expected, rtol=1e-5, atol=1e-6)
    pairs = list(zip(found.rows.tolist(), found.interests.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.source.name)
def test_every_source_finds_nothing_where_nothing_may_be_shown(
    small_world: SmallWorld, snapshot: Snapshot, user_id: str, source: CandidateSource
) -> None:
    query = RecallQuery(user_id=user_id, count=10, now=NOW, allow_categories=("no such category",))
    with SnapshotHolder(snapshot).acquire() as lease:
        user = hydrate(lease, query, EmptyUserState(), ChannelSettings())
    if source.has_queries(user):
        assert len(source.find(snapshot.vectors, user, some_vectors(user.interests), 10)) == 0


def test_collaborative_finds_the_nearest_items_of_novel_categories(snapshot: Snapshot, user: Hydrated) -> None:
    vectors = some_vectors(user.interests)
    found = CollaborativeSource().find(snapshot.vectors, user, vectors, 10)
    rows = [row for row in user.ranges.rows().tolist() if not snapshot.unavailable[row]]
    nearest = sorted(rows, key=lambda row: -float(snapshot.vectors.vectors[row] @ vectors.user))[:10]
    assert found.rows.tolist() == nearest
    assert set(found.interests.tolist()) == {NO_INTEREST}


def test_interest_searches_its_grounded_rows_and_openly(snapshot: Snapshot, user: Hydrated) -> None:
    vectors = some_vectors(user.interests)
    found = InterestSource().find(snapshot.vectors, user, vectors, 5)
    for i, ranges in enumerate(user.interests.ranges):
        mine = set(found.rows[found.interests == i].tolist())
        for rows in (ranges.rows(), user.ranges.rows()):
            available = [row for row in rows.tolist() if not snapshot.unavailable[row]]
            nearest = sorted(available, key=lambda row: -float(snapshot.vectors.vectors[row] @ vectors.interests[i]))
            assert set(nearest[:5]) <= mine


def test_stored_vectors_search_only_grounded_rows(snapshot: Snapshot, user: Hydrated) -> None:
    found = InterestSource().find(snapshot.vectors, user, some_vectors(user.interests, fallback=True), 1_000)
    for i, ranges in enumerate(user.interests.ranges):
        assert set(found.rows[found.interests == i].tolist()) <= set(ranges.rows().tolist())


def test_one_interest_finds_a_bounded_share_of_a_large_request(snapshot: Snapshot, user: Hydrated) -> None:
    found = InterestSource().find(snapshot.vectors, user, some_vectors(user.interests), 1_000)
    assert np.bincount(found.interests).max() <= 1_000
    few = InterestSource().find(snapshot.vectors, user, some_vectors(user.interests), 2)
    assert np.bincount(few.interests).max() <= 4


def test_states_tell_how_old_the_interests_are(snapshot: Snapshot, user_id: str, user: Hydrated) -> None:
    assert InterestSource().state_of(user) is SourceState.OK
    assert InterestSource().state_of(read(snapshot, user_id, NOW + 8 * DAY)) is SourceState.STALE
    assert CollaborativeSource().state_of(read(snapshot, user_id, NOW + 8 * DAY)) is SourceState.OK
    assert [source.source for source in SOURCES] == list(Source)
