"""Hostile requests: every kind is made, and a running service bears them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from benchmarks import hostile
from serendipity.v1 import channel_pb2
from tests.channel.served import copy_snapshot, publish
from tests.fixtures.small_world import SmallWorld


def test_contents_are_those_that_parsers_and_validation_fear() -> None:
    rng, unreadable, values = random.Random(0), dict.fromkeys(hostile.KINDS, 0), []
    for name, make in hostile.KINDS.items():
        for _ in range(200):
            try:
                values.append(channel_pb2.RecallRequest.FromString(make(rng, channel_pb2.RecallRequest)))
            except DecodeError:
                unreadable[name] += 1
    assert unreadable.pop("any values") == unreadable.pop("some values") == 0
    assert all(unreadable.values())
    assert any(value.surprise != value.surprise for value in values)
    assert any(len(value.user_id) > 50_000 for value in values)
    assert any(value.novelty_policy not in channel_pb2.NoveltyPolicy.values() for value in values)


@pytest.mark.integration
def test_a_running_service_answers_or_refuses_them_all(
    small_world: SmallWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_snapshot(small_world, tmp_path / "build" / "snapshots", "v1")
    publish(tmp_path / "build", "v1")
    out = tmp_path / "hostile.md"
    given = ["--build", str(tmp_path / "build"), "--calls", "400", "--workers", "1", "--out", str(out)]
    assert hostile.main(given) == 0, capsys.readouterr().err
    assert "Faults: 0. Processes lost: 0." in out.read_text()
    assert "INVALID_ARGUMENT" in out.read_text()


def test_a_build_without_a_snapshot_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hostile.main(["--build", str(tmp_path)]) == 1
    assert "manifest.json: cannot be read" in capsys.readouterr().err
