"""A build nobody trained opens, and its users are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stored import known_users
from benchmarks.synthetic_snapshot import NOW, Sizes, write_build
from serendipity.channel.local import LocalChannel
from serendipity.channel.snapshot.snapshot import open_snapshot
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.v1 import channel_pb2

SIZES = Sizes(items=2_000, dim=16, categories=30, users=40, interest_dim=24)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    write_build(SIZES, out)
    return out


def test_its_snapshot_opens_with_what_was_asked_for(build: Path) -> None:
    snapshot = open_snapshot(build / "snapshots" / "current")
    try:
        assert len(snapshot.item_ids) == SIZES.items
        assert snapshot.num_categories == SIZES.categories
        assert snapshot.vectors.dim == SIZES.dim
        assert len(snapshot.users) == SIZES.users + 1
    finally:
        snapshot.close()


def test_every_source_finds_something_for_its_users(build: Path) -> None:
    users = known_users(build / "snapshots" / "current", seed=0)
    assert len(users) == SIZES.users
    tower = LocalTower(build / "towers" / "user_tower.onnx")
    with LocalChannel(build / "snapshots" / "current", tower, clock=lambda: NOW) as channel:
        answers = [channel.recall(channel_pb2.RecallRequest(user_id=user, count=20)) for user in users]
    assert all(len(answer.item_ids) == 20 and not answer.degraded for answer in answers)
    statuses = [status for answer in answers for status in answer.source_statuses]
    # There is no graph: what is measured at scale is the search that every request pays for.
    assert all(status.found for status in statuses if status.source != channel_pb2.SOURCE_GRAPH)
    keys = {status.novel_category_key for status in statuses}
    assert channel_pb2.NOVEL_CATEGORY_KEY_M1 in keys


def test_the_same_seed_makes_the_same_snapshot(build: Path, tmp_path: Path) -> None:
    assert write_build(SIZES, tmp_path).name == (build / "snapshots" / "current").resolve().name
    assert write_build(SIZES, tmp_path, seed=1).name != (build / "snapshots" / "current").resolve().name
