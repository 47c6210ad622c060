"""Snapshots of layout 2 are published, opened and answered from like those of this one: upgrades need no new build."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.local import LocalChannel
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.snapshot.trial_opening import can_be_opened
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.layout_2 import turn_to_layout_2
from tests.fixtures.small_world import NOW, SmallWorld


@pytest.fixture(scope="module", params=["flat", "ivf"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def earlier(kind: str, small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world's snapshot in layout 2; tests must not change its files."""
    root = tmp_path_factory.mktemp("earlier")
    if kind == "ivf":
        directory = write_snapshot(small_world.contents, root, created_at=NOW, index=IndexConfig(exact_below=100))
    else:
        directory = root / small_world.version
        shutil.copytree(small_world.snapshot_dir, directory, ignore=shutil.ignore_patterns("lock.mdb"))
    turn_to_layout_2(directory)
    manifest = layout.read_manifest(directory)
    assert (manifest.layout_version, manifest.vector_index.kind) == (2, kind)
    assert "calibration" in (directory / layout.MANIFEST).read_text()
    for name in (layout.ITEM_STATISTICS, layout.CATEGORY_VECTORS, layout.MERGE_MODEL):
        assert not (directory / name).exists()
    return directory


def test_it_says_what_one_of_this_layout_says(earlier: Path, snapshot: Snapshot) -> None:
    # Checksums are verified as well.
    opened = open_snapshot(earlier)
    assert list(opened.item_ids) == list(snapshot.item_ids)
    ids = ["item-007", "unknown", "item-399"]
    assert opened.item_ids.rows_of(ids).tolist() == snapshot.item_ids.rows_of(ids).tolist()
    assert opened.category_names == snapshot.category_names
    np.testing.assert_array_equal(opened.unavailable, snapshot.unavailable)
    np.testing.assert_array_equal(opened.vectors.vectors, snapshot.vectors.vectors)
    opened.close()


def test_it_answers_by_fused_ranks_and_with_nothing_learned_of_items(
    earlier: Path, small_world: SmallWorld, tmp_path: Path
) -> None:
    # What it lacks is what one of this layout is like of which nothing could be learned.
    nothing = replace(
        small_world.contents,
        merge=records_pb2.MergeSpec(),
        merge_model=None,
        item_statistics=np.zeros_like(small_world.contents.item_statistics),
        category_vectors=np.zeros_like(small_world.contents.category_vectors),
    )
    present = write_snapshot(nothing, tmp_path, created_at=NOW)
    assert layout.read_manifest(present).layout_version == layout.LAYOUT_VERSION == 3
    tower = LocalTower(small_world.tower_path)
    with (
        LocalChannel(earlier, tower, clock=lambda: NOW) as channel,
        LocalChannel(present, tower, clock=lambda: NOW) as beside,
    ):
        for i, user_id in enumerate([*small_world.user_ids, "nobody"]):
            request = pb.RecallRequest(
                user_id=user_id,
                count=20,
                explain=True,
                exclude_item_ids=[small_world.item_ids[i], "in no catalogue"],
                recent_events=[pb.Event(item_id=small_world.item_ids[3 * i], type=pb.EVENT_TYPE_CLICK)],
            )
            before, now = channel.recall(request), beside.recall(request)
            assert len(before.item_ids) == 20
            assert before.versions.merge == ""
            assert not before.degraded
            assert set(before.unexpectedness) == {1.0}
            for response in (before, now):
                for name in ("recall_id", "timings", "versions"):
                    response.ClearField(name)
                for status in response.source_statuses:
                    status.ClearField("elapsed")
            assert before == now


def test_it_is_published_and_served_beside_one_of_this_layout(
    earlier: Path, small_world: SmallWorld, tmp_path: Path
) -> None:
    for version, source in (("earlier", earlier), ("present", small_world.snapshot_dir)):
        shutil.copytree(source, tmp_path / version, ignore=shutil.ignore_patterns("lock.mdb"))
        manifest = layout.read_manifest(tmp_path / version)
        manifest.version = version
        layout.write_manifest(tmp_path / version, manifest)
    publications = Publications(tmp_path, checks=[can_be_opened(tmp_path)])
    for version in ("earlier", "present"):
        publications.publish(version)
    assert publications.rollback().version == "earlier"
    holder = SnapshotHolder()
    for version in ("earlier", "present", "earlier"):
        holder.swap(tmp_path / version)
        assert holder.version == version
    holder.close()


def test_a_layout_before_that_is_refused(earlier: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy, ignore=shutil.ignore_patterns("lock.mdb"))
    path = copy / layout.MANIFEST
    path.write_text(path.read_text().replace('"layout_version": 2', '"layout_version": 1'))
    with pytest.raises(SnapshotUnavailable, match="layout_version: found 1, expected 3 or 2"):
        open_snapshot(copy)


def test_a_field_that_nobody_knows_is_refused_in_this_layout(small_world: SmallWorld, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_world.snapshot_dir, copy, ignore=shutil.ignore_patterns("lock.mdb"))
    path = copy / layout.MANIFEST
    path.write_text(path.read_text().replace("{", '{"calibration": {}, ', 1))
    with pytest.raises(SnapshotUnavailable, match=r"manifest\.json: not a manifest"):
        open_snapshot(copy)
