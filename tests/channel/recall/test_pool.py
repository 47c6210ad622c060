from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.pool import Pool, UserVectors, gather
from serendipity.channel.recall.query import SOURCES, RecallQuery
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.vectors import ItemVectors
from serendipity.channel.state.state import UserState
from tests.fixtures.small_world import DIM, NOW, NUM_ITEMS, SmallWorld

U2I = SOURCES[1]


@pytest.fixture
def user(snapshot: Snapshot, small_world: SmallWorld) -> Hydrated:
    user_id = max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))
    query = RecallQuery(user_id=user_id, count=10, now=NOW)
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, UserState(), ChannelSettings())


@pytest.fixture
def vectors(user: Hydrated) -> UserVectors:
    rows = np.random.default_rng(0).normal(size=(1 + len(user.interests), DIM)).astype(np.float32)
    return UserVectors(rows, fallback=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=30), max_size=4))
def test_a_pool_has_each_row_once_with_what_is_known_of_it(
    small_world: SmallWorld, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, proposed: list[list[int]]
) -> None:
    by_source = {source: np.array(rows, np.int64) for source, rows in enumerate(proposed)}
    pool = gather(by_source, vectors, user, snapshot)
    for source, rows in enumerate(proposed):
        assert pool.rows[pool.proposed_by[source]].tolist() == sorted(set(rows))
    assert pool.rows.tolist() == sorted({row for rows in proposed for row in rows})
    assert pool.rows.dtype == np.int64
    assert pool.scores.dtype == np.float32
    catalogue = small_world.contents.catalogue
    assert pool.categories.tolist() == catalogue.item_categories[pool.rows].tolist()
    clicked = {0, *small_world.contents.users[user.query.user_id].click_categories}
    assert pool.novel.tolist() == [int(number) not in clicked for number in catalogue.item_categories[pool.rows]]
    np.testing.assert_allclose(
        pool.scores, small_world.contents.item_vectors[pool.rows] @ vectors.rows.T, rtol=1e-5, atol=1e-6
    )
    nodes = {node.name: node for node in small_world.contents.nodes}
    for k, name in enumerate(user.interests.names):
        (start,), (end,) = nodes[name].starts, nodes[name].ends
        assert pool.grounded[:, k].tolist() == [start <= row < end for row in pool.rows]


def test_nothing_proposed_is_an_empty_pool(snapshot: Snapshot, user: Hydrated, vectors: UserVectors) -> None:
    nothing: dict[int, NDArray[np.int64]] = {}
    for proposed in (nothing, {U2I: np.empty(0, np.int64)}):
        pool = gather(proposed, vectors, user, snapshot)
        assert len(pool) == 0
        assert pool.scores.shape == (0, 1 + len(user.interests))
        assert pool.grounded.shape == (0, len(user.interests))
    assert len(Pool.empty()) == 0


def test_scores_that_are_not_numbers_get_nowhere(snapshot: Snapshot, user: Hydrated, vectors: UserVectors) -> None:
    broken = snapshot.vectors.vectors.copy()
    broken[::2, 3] = np.nan
    broken[1::4, 3] = np.inf
    every = np.arange(NUM_ITEMS)
    damaged = replace(snapshot, vectors=ItemVectors(broken))
    pool = gather({U2I: every}, vectors, user, damaged)
    assert pool.rows.tolist() == every[3::4].tolist()
    assert np.isfinite(pool.scores).all()
    assert "of 400 items are not finite" in pool.failure
    # Of one interest's vector, that interest leads nowhere; the rest is as it was.
    infinite = vectors.rows.copy()
    infinite[-1, 0] = np.inf
    pool = gather({U2I: every}, replace(vectors, rows=infinite), user, snapshot)
    assert pool.rows.tolist() == every.tolist()
    assert (pool.scores[:, -1] == -np.inf).all()
    assert np.isfinite(pool.scores[:, :-1]).all()
    assert pool.failure


def test_what_is_taken_keeps_every_column(snapshot: Snapshot, user: Hydrated, vectors: UserVectors) -> None:
    pool = gather(dict.fromkeys(SOURCES, np.arange(NUM_ITEMS)), vectors, user, snapshot)
    where = np.random.default_rng(1).random(NUM_ITEMS) < 0.3
    taken = pool.take(where)
    for source in SOURCES:
        assert taken.proposed_by[source].tolist() == pool.proposed_by[source][where].tolist()
    for field in dataclasses.fields(Pool):
        if field.name in ("proposed_by", "failure"):
            continue
        np.testing.assert_array_equal(getattr(taken, field.name), getattr(pool, field.name)[where], err_msg=field.name)
    assert pool.take(np.ones(NUM_ITEMS, np.bool_)) is pool


def test_a_stored_vector_stands_in_for_all(small_world: SmallWorld) -> None:
    vector = np.arange(DIM, dtype=np.float32)
    stored = UserVectors.stored(vector, 3)
    assert stored is not None
    assert stored.fallback
    assert stored.rows.tolist() == [vector.tolist()] * 4
    assert UserVectors.stored(None, 3) is None
