"""A real snapshot, the real exported tower, and channels over them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serendipity.channel.local import LocalChannel
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.tower.local_tower import LocalTower
from tests.fixtures.grouped_world import GroupedWorld, make_grouped_world
from tests.fixtures.small_world import NOW, SmallWorld


@pytest.fixture(scope="session")
def snapshot(small_world: SmallWorld) -> Iterator[Snapshot]:
    """The small world's snapshot, open."""
    opened = open_snapshot(small_world.snapshot_dir)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def grouped_world(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> GroupedWorld:
    """The small world with groups and lists; tests must not change its files."""
    return make_grouped_world(small_world, tmp_path_factory.mktemp("grouped-world"))


@pytest.fixture(scope="session")
def grouped_snapshot(grouped_world: GroupedWorld) -> Iterator[Snapshot]:
    """The snapshot with groups, open."""
    opened = open_snapshot(grouped_world.snapshot_dir)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def local_tower(small_world: SmallWorld) -> LocalTower:
    """The small world's tower, in this process."""
    return LocalTower(small_world.tower_path)


@pytest.fixture(scope="session")
def local_channel(small_world: SmallWorld) -> Iterator[LocalChannel]:
    """A channel over the small world, as of the moment it was built."""
    with LocalChannel(small_world.snapshot_dir, LocalTower(small_world.tower_path), clock=lambda: NOW) as channel:
        yield channel
