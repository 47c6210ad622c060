"""Damaged copies of a snapshot: each is refused, and the one before goes on answering."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import corruptions
from serendipity import layout
from tests.channel.served import copy_snapshot, publish
from tests.fixtures.small_world import SmallWorld


def test_every_copy_is_damaged_and_the_original_is_left_alone(small_world: SmallWorld, tmp_path: Path) -> None:
    original = copy_snapshot(small_world, tmp_path, "original")
    copies = corruptions.Copies(original, tmp_path / "snapshots", seed=1)
    done = set()
    for number in range(60):
        done.add(copies.make(f"v{number}").partition(":")[0])
        with pytest.raises(layout.SnapshotError):
            layout.verify_files(tmp_path / "snapshots" / f"v{number}")
    assert done == set(corruptions.DAMAGES)
    layout.verify_files(original)


@pytest.mark.integration
def test_a_running_service_refuses_them_all_and_fails_no_call(
    small_world: SmallWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_snapshot(small_world, tmp_path / "build" / "snapshots", "v1")
    publish(tmp_path / "build", "v1")
    out = tmp_path / "corruptions.md"
    given = ["--build", str(tmp_path / "build"), "--count", "12", "--workers", "1", "--out", str(out)]
    assert corruptions.main(given) == 0, capsys.readouterr().err
    assert "| all | 12 | 12 | 12 |" in out.read_text()
    assert "0 from another, 0 failed" in " ".join(out.read_text().split())


def test_a_build_without_a_snapshot_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corruptions.main(["--build", str(tmp_path)]) == 1
    assert "manifest.json: cannot be read" in capsys.readouterr().err
