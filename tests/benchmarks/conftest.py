"""What the benchmarks are tested on: the small world with groups, in a directory that nobody else opens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stored import Stored
from serendipity.channel.local import LocalChannel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.v1 import channel_pb2
from tests.fixtures.grouped_world import make_grouped_world
from tests.fixtures.small_world import NOW, SmallWorld

COUNT = 20

Answers = dict[str, channel_pb2.RecallResponse]
"""By user."""


@pytest.fixture(scope="session")
def measured_world(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A world of which LMDB opens each store once at a time."""
    return make_grouped_world(small_world, tmp_path_factory.mktemp("measured-world")).world


@pytest.fixture(scope="session")
def channel_answers(measured_world: SmallWorld) -> Answers:
    """What the channel answers every user."""
    return answers_of(measured_world, measured_world.snapshot_dir)


def answers_of(world: SmallWorld, snapshot: Path) -> Answers:
    """Ask the channel for every user, with no source that is only explored."""
    tower, settings = LocalTower(world.tower_path), ChannelSettings(explored_share=0)
    with LocalChannel(snapshot, tower, settings=settings, clock=lambda: NOW) as channel:
        return {user: channel.recall(channel_pb2.RecallRequest(user_id=user, count=COUNT)) for user in world.user_ids}


@pytest.fixture
def stored(measured_world: SmallWorld, channel_answers: object) -> Iterator[Stored]:
    """The world's snapshot, opened once the channel has closed it."""
    opened = Stored(measured_world.snapshot_dir)
    yield opened
    opened.close()
