"""When a worker tries the wanted snapshot again."""

from __future__ import annotations

import shutil
from pathlib import Path

from serendipity import layout
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.watcher import Served, SnapshotWatcher
from tests.channel.served import copy_snapshot
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
