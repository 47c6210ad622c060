"""What a worker serves when the wanted snapshot cannot be, and when it tries it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.watcher import Served, SnapshotWatcher
from tests.channel.served import copy_snapshot, damage
from tests.fixtures.small_world import NOW, SmallWorld


async def test_a_refused_snapshot_is_tried_again_after_a_while_even_if_the_wall_clock_is_set_back(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    directory = copy_snapshot(small_world, tmp_path, "one")
    publications = Publications(tmp_path)
    publications.publish("one")
    shutil.move(directory / layout.ITEM_VECTORS, tmp_path / "away")
    wall, elapsed = [float(NOW)], [0.0]
    told: list[str] = []

    async def on_change(served: Served, _: Snapshot | None) -> None:
        told.append(served.error or served.version)

    holder = SnapshotHolder()
    watcher = SnapshotWatcher(
        publications,
        holder,
        on_change=on_change,
        poll=1.0,
        retry=30.0,
        clock=lambda: wall[0],
        monotonic=lambda: elapsed[0],
    )
    await watcher.converge()
    shutil.move(tmp_path / "away", directory / layout.ITEM_VECTORS)
    wall[0] -= 86_400
    elapsed[0] = 29.0
    await watcher.converge()
    assert holder.version == ""
    elapsed[0] = 30.0
    await watcher.converge()
    assert holder.version == "one"
    assert "item_vectors.npy: missing" in told[0]
    assert told[1:] == ["one"]
    holder.close()


class Watched:
    """A watcher of snapshots `one`, `two` and `three`, wanted one after another, and what it told."""

    def __init__(self, world: SmallWorld, root: Path) -> None:
        self.publications = Publications(root)
        for version in ("one", "two", "three"):
            copy_snapshot(world, root, version)
            self.publications.publish(version)
        self.holder = SnapshotHolder()
        self.elapsed = 0.0
        self.watcher = self.another(self.holder)

    def another(self, holder: SnapshotHolder) -> SnapshotWatcher:
        async def on_change(_: Served, __: Snapshot | None) -> None:
            pass

        return SnapshotWatcher(
            self.publications, holder, on_change=on_change, poll=1.0, retry=30.0, monotonic=lambda: self.elapsed
        )


@pytest.fixture
def watched(small_world: SmallWorld, tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(small_world, tmp_path)
    yield watched
    watched.holder.close()


async def test_the_latest_good_one_of_those_wanted_before_stands_in_and_the_wanted_one_follows(
    watched: Watched, tmp_path: Path
) -> None:
    for version in ("two", "three"):
        damage(tmp_path / version)
    await watched.watcher.converge()
    served = watched.watcher.served
    assert (watched.holder.version, served.version) == ("one", "one")
    assert "item_vectors.npy: SHA-256" in served.error
    assert served.error.endswith("one, wanted before, stands in")
    damage(tmp_path / "three")
    watched.elapsed = 31.0
    await watched.watcher.converge()
    assert (watched.holder.version, watched.watcher.served.error) == ("three", "")


async def test_without_the_link_the_last_one_that_was_wanted_is_served(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / layout.CURRENT).unlink()
    await watched.watcher.converge()
    assert (watched.holder.version, watched.watcher.served.version) == ("three", "three")
    assert "current: no such link" in watched.watcher.served.error
    watched.publications.publish("two")
    await watched.watcher.converge()
    assert (watched.holder.version, watched.watcher.served.error) == ("two", "")


async def test_a_snapshot_that_is_changed_while_it_is_served_gives_way_to_the_one_before(
    watched: Watched, tmp_path: Path
) -> None:
    await watched.watcher.converge()
    assert watched.holder.version == "three"
    damage(tmp_path / "three")
    await watched.watcher.converge()
    assert watched.holder.version == "two"
    assert "item_vectors.npy: SHA-256" in watched.watcher.served.error
    # Deleting what is open does no harm, so it stays.
    shutil.rmtree(tmp_path / "two")
    watched.elapsed = 31.0
    await watched.watcher.converge()
    assert watched.holder.version == "two"


async def test_where_none_is_good_none_is_served(watched: Watched, tmp_path: Path) -> None:
    for version in ("one", "two", "three"):
        damage(tmp_path / version)
    for _ in range(3):
        await watched.watcher.converge()
        watched.elapsed += 31.0
    assert (watched.holder.version, watched.watcher.served.version) == ("", "")
    assert "SHA-256" in watched.watcher.served.error
