from __future__ import annotations

import numpy as np
import pytest

from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.pool import UserVectors, gather
from serendipity.channel.recall.query import RecallQuery
from serendipity.channel.recall.sources import NO_INTEREST
from serendipity.channel.recall.sources.graph import GraphSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.grouped_world import GroupedWorld
from tests.fixtures.small_world import DIM, NOW, NUM_ITEMS


@pytest.fixture
def user(grouped_world: GroupedWorld, grouped_snapshot: Snapshot) -> Hydrated:
    with SnapshotHolder(grouped_snapshot).acquire() as lease:
        query = RecallQuery(user_id=grouped_world.world.user_ids[3], count=10, now=NOW)
        return hydrate(lease, query, UserState(), ChannelSettings())


def vectors(user: Hydrated) -> UserVectors:
    return UserVectors.absent(DIM, len(user.interests))


def test_what_speaks_for_an_item_is_scored_whoever_proposed_it(grouped_snapshot: Snapshot, user: Hydrated) -> None:
    assert user.folded is not None
    pool = gather({pb.SOURCE_COLLABORATIVE: np.arange(NUM_ITEMS)}, vectors(user), user, grouped_snapshot)
    for fallback in (False, True):
        finds = GraphSource().score(pool, user, fallback)
        np.testing.assert_array_equal(finds.raw, user.folded.scores(pool.rows))
        np.testing.assert_array_equal(finds.found, finds.raw > 0)
        assert 0 < finds.found.sum() < NUM_ITEMS
        assert set(finds.interests.tolist()) == {NO_INTEREST}


@pytest.mark.parametrize("wanted", [1, 20, 1_000])
def test_the_nearest_that_may_be_shown_are_proposed_if_anything_speaks_for_them(
    grouped_snapshot: Snapshot, user: Hydrated, wanted: int
) -> None:
    assert user.folded is not None
    proposed = GraphSource().propose(grouped_snapshot, user, vectors(user), wanted)
    shown = user.ranges.rows()[~user.unavailable[user.ranges.rows()]]
    scores = user.folded.scores(shown)
    best = shown[np.argsort(-scores)][:wanted]
    assert sorted(proposed.tolist()) == sorted(best[user.folded.scores(best) > 0].tolist())
