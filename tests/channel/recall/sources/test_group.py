from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serendipity.channel.recall.candidates import NO_INTEREST
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import RecallQuery, Source
from serendipity.channel.recall.recalled import NovelCategoryKey, SourceState
from serendipity.channel.recall.sources import UserVectors
from serendipity.channel.recall.sources.group import GroupSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Snapshot, SnapshotHolder
from serendipity.channel.state.state import EmptyUserState
from tests.fixtures.small_world import DIM, NOW


@pytest.fixture
def user(grouped_snapshot: Snapshot) -> Hydrated:
    with SnapshotHolder(grouped_snapshot).acquire() as lease:
        query = RecallQuery(user_id="nobody", count=10, now=NOW)
        return hydrate(lease, query, EmptyUserState(), ChannelSettings())


@pytest.fixture
def vectors() -> UserVectors:
    rng = np.random.default_rng(3)
    return UserVectors(rng.normal(size=DIM).astype(np.float32), np.empty((0, DIM), np.float32), fallback=False)


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


@pytest.mark.parametrize("requested", [1, 7, 40, 1_000])
def test_the_best_of_each_category_by_alignment_times_relevance(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors, requested: int
) -> None:
    user = with_list(user, [2, 5, 9], [0.9, 0.5, 0.1], grouped_snapshot)
    found = GroupSource().find(grouped_snapshot.vectors, user, vectors, requested)
    quota = -(-2 * requested // 4)
    expected = []
    for number, alignment in ((2, 0.9), (5, 0.5), (9, 0.1)):
        rows = range(*grouped_snapshot.category_offsets[number - 1 : number + 1].tolist())
        scores = {
            row: float(grouped_snapshot.vectors.vectors[row] @ vectors.user)
            for row in rows
            if not grouped_snapshot.unavailable[row]
        }
        best = sorted(scores, key=lambda row: -scores[row])[:quota]
        expected += [(alignment * float(np.log1p(np.exp(scores[row]))), row) for row in best]
    expected = sorted(expected, key=lambda pair: -pair[0])[:requested]
    assert found.rows.tolist() == [row for _, row in expected]
    np.testing.assert_allclose(found.raw, [raw for raw, _ in expected], rtol=1e-5)
    assert set(found.sources.tolist()) == {Source.GROUP}
    assert set(found.interests.tolist()) == {NO_INTEREST}


def test_scores_are_positive_ordered_and_apart_however_far_an_item_lies(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    user = with_list(user, [2], [0.5], grouped_snapshot)
    for scale in (-10.0, 1.0, 10.0):
        scaled = replace(vectors, user=vectors.user * np.float32(scale))
        found = GroupSource().find(grouped_snapshot.vectors, user, scaled, 20)
        assert (found.raw > 0).all()
        assert (np.diff(found.raw) < 0).all()
        assert np.isfinite(found.raw).all()


def test_one_category_fills_the_source_only_where_it_is_alone(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    alone = with_list(user, [4], [0.9], grouped_snapshot)
    assert len(GroupSource().find(grouped_snapshot.vectors, alone, vectors, 20)) == 20
    several = with_list(user, [4, 5, 6, 7, 8], [1.0, 1e-6, 1e-6, 1e-6, 1e-6], grouped_snapshot)
    found = GroupSource().find(grouped_snapshot.vectors, several, vectors, 21)
    assert len(found) == 21
    assert (grouped_snapshot.categories_of(found.rows + 1) == 4).sum() == 7


def test_stored_vectors_find_what_the_same_vector_of_the_tower_would(
    grouped_snapshot: Snapshot, user: Hydrated, vectors: UserVectors
) -> None:
    found = GroupSource().find(grouped_snapshot.vectors, user, vectors, 30)
    stored = GroupSource().find(grouped_snapshot.vectors, user, replace(vectors, fallback=True), 30)
    assert len(found)
    assert found.rows.tolist() == stored.rows.tolist()


def test_without_a_list_there_is_nothing_to_search_by(user: Hydrated) -> None:
    assert GroupSource().has_queries(user)
    for key, state in (
        (NovelCategoryKey.NONE, SourceState.UNAVAILABLE),
        (NovelCategoryKey.UNSPECIFIED, SourceState.OK),
    ):
        nothing = replace(user, novel_categories=NovelCategories.none(key, state))
        assert not GroupSource().has_queries(nothing)
        assert GroupSource().state_of(nothing) is state
