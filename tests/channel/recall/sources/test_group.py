from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.pool import Pool, UserVectors, gather
from serendipity.channel.recall.query import RecallQuery
from serendipity.channel.recall.sources import NO_INTEREST
from serendipity.channel.recall.sources.group import GroupSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import DIM, NOW, NUM_ITEMS


@pytest.fixture
def user(grouped_snapshot: Snapshot) -> Hydrated:
    with SnapshotHolder(grouped_snapshot).acquire() as lease:
        query = RecallQuery(user_id="nobody", count=10, now=NOW)
        return hydrate(lease, query, UserState(), ChannelSettings())


@pytest.fixture
def vectors(user: Hydrated) -> UserVectors:
    rows = np.random.default_rng(3).normal(size=(1 + len(user.interests), DIM)).astype(np.float32)
    return UserVectors(rows, fallback=False)


def with_list(user: Hydrated, numbers: list[int], alignments: list[float], snapshot: Snapshot) -> Hydrated:
    categories = np.array(numbers, np.int32)
    offsets = snapshot.category_offsets
    novel = replace(
        user.novel_categories,
        numbers=categories,
        alignments=np.array(alignments, np.float32),
        starts=offsets[categories - 1],
        ends=offsets[categories],
    )
    return replace(user, novel_categories=novel)


def everything_for(user: Hydrated, vectors: UserVectors, snapshot: Snapshot) -> Pool:
    """Every item of the catalogue, none proposed by the group."""
    return gather({pb.SOURCE_COLLABORATIVE: np.arange(NUM_ITEMS)}, vectors, user, snapshot)


def scores_in(snapshot: Snapshot, number: int, vector: NDArray[np.float32]) -> dict[int, float]:
    """Inner products of the rows of a category that are in stock."""
    rows = range(*snapshot.category_offsets[number - 1 : number + 1].tolist())
    return {row: float(snapshot.vectors.vectors[row] @ vector) for row in rows if not snapshot.unavailable[row]}


@pytest.mark.parametrize("wanted", [1, 7, 40, 1_000])
@pytest.mark.parametrize("blocked", [0, 3])
def test_the_nearest_of_each_category_are_proposed_up_to_its_share(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int, blocked: int
) -> None:
    user = replace(with_list(user, [2, 5, 9], [0.9, 0.5, 0.1], grouped_snapshot), served=np.arange(blocked))
    share = -(-2 * wanted // 4) + blocked
    expected: set[int] = set()
    for number in (2, 5, 9):
        scores = scores_in(grouped_snapshot, number, vectors.rows[0])
        expected |= set(sorted(scores, key=lambda row: -scores[row])[:share])
    proposed = GroupSource().propose(grouped_snapshot, user, vectors, wanted)
    assert sorted(proposed.tolist()) == sorted(expected)


def test_what_is_of_a_listed_category_scores_by_alignment_times_relevance_whoever_proposed_it(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    alignments = {2: 0.9, 5: 0.5, 9: 0.1}
    user = with_list(user, list(alignments), list(alignments.values()), grouped_snapshot)
    pool = everything_for(user, vectors, grouped_snapshot)
    finds = GroupSource().score(pool, user, fallback=False)
    assert finds.found.tolist() == [number in alignments for number in pool.categories.tolist()]
    assert set(finds.interests.tolist()) == {NO_INTEREST}
    found = np.flatnonzero(finds.found)
    expected = [
        alignments[int(pool.categories[i])]
        * float(np.log1p(np.exp(grouped_snapshot.vectors.vectors[pool.rows[i]] @ vectors.rows[0])))
        for i in found
    ]
    np.testing.assert_allclose(finds.raw[found], expected, rtol=1e-5)
    # Of other categories nothing is said.
    assert set(finds.raw[~finds.found].tolist()) == {0.0}


def test_scores_are_positive_ordered_and_apart_however_far_an_item_lies(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    user = with_list(user, [2], [0.5], grouped_snapshot)
    for scale in (-10.0, 1.0, 10.0):
        scaled = replace(vectors, rows=vectors.rows * np.float32(scale))
        pool = everything_for(user, scaled, grouped_snapshot)
        finds = GroupSource().score(pool, user, fallback=False)
        at = np.flatnonzero(finds.found)
        at = at[np.argsort(-pool.scores[at, 0])]
        assert (finds.raw[at] > 0).all()
        assert (np.diff(finds.raw[at]) < 0).all()
        assert np.isfinite(finds.raw[at]).all()


def test_one_category_fills_what_is_proposed_only_where_it_is_alone(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    def proposed(numbers: list[int], wanted: int) -> NDArray[np.int32]:
        listed = with_list(user, numbers, [1.0] * len(numbers), grouped_snapshot)
        rows = GroupSource().propose(grouped_snapshot, listed, vectors, wanted)
        assert len(set(rows.tolist())) == len(rows)
        return grouped_snapshot.categories_of(rows + 1)

    assert len(proposed([4], 20)) == 20
    counts = np.bincount(proposed([4, 5, 6, 7, 8], 21))
    assert counts[4:9].tolist() == [7] * 5
    assert counts.sum() == 35


def test_stored_vectors_find_what_the_same_vector_of_the_tower_would(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    source = GroupSource()
    assert len(user.novel_categories)
    tower, stored = (
        source.propose(grouped_snapshot, user, replace(vectors, fallback=each), 30) for each in (False, True)
    )
    assert tower.tolist() == stored.tolist()
    pool = everything_for(user, vectors, grouped_snapshot)
    finds, of_stored = (source.score(pool, user, each) for each in (False, True))
    np.testing.assert_array_equal(finds.raw, of_stored.raw)
    np.testing.assert_array_equal(finds.found, of_stored.found)


def test_without_a_list_there_is_nothing_to_search_by(user: Hydrated) -> None:
    assert GroupSource().has_queries(user)
    none = NovelCategories.none(pb.NOVEL_CATEGORY_KEY_NONE)
    for nothing, state in (
        (replace(none, state=pb.SOURCE_STATE_UNAVAILABLE), pb.SOURCE_STATE_UNAVAILABLE),
        (NovelCategories.none(), pb.SOURCE_STATE_OK),
    ):
        without = replace(user, novel_categories=nothing)
        assert not GroupSource().has_queries(without)
        assert GroupSource().state_of(without) == state
    stale = replace(user, novel_categories=replace(user.novel_categories, state=pb.SOURCE_STATE_STALE))
    assert GroupSource().state_of(stale) == pb.SOURCE_STATE_STALE
