"""The whole benchmark of Recall on a small build, with the real Triton."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.channel import main
from benchmarks.compare import main as compare
from benchmarks.synthetic_snapshot import Sizes, write_build

SMALL = Sizes(items=2_000, dim=16, categories=30, users=40, interest_dim=24)


@pytest.mark.integration
def test_one_command_measures_three_systems_and_they_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_build(SMALL, tmp_path)
    out = tmp_path / "bench.md"
    options = ["--calls", "60", "--rounds", "4", "--callers", "3", "--count", "20"]
    assert main(["--build", str(tmp_path), *options, "--out", str(out)]) == 0
    page = out.read_text()
    assert page.strip() == capsys.readouterr().out.strip()
    assert "60 calls of each system in each phase, 20 candidates, 40 users, so that some are asked for 2 times" in page
    assert "degraded answers of the channel: 0 of 40 users'" in page
    found = json.loads(out.with_suffix(".json").read_text())
    agreements = {agreement["systems"]: agreement for agreement in found["agreements"]}
    assert agreements["channel, plain stack"]["users"] == 40
    assert agreements["channel, plain stack"]["mean"] >= 0.95
    assert agreements["channel, floor"]["mean"] >= 0.5
    for phase, systems in (
        ("1 caller", {"channel", "plain stack", "floor"}),
        ("3 callers", {"channel", "plain stack"}),
        ("batches of 32", {"RecallBatch", "channel"}),
    ):
        blocks = [block for block in found["blocks"] if block["phase"] == phase]
        assert {block["system"] for block in blocks} == systems
        assert all(block["server_cpu"] > 0 and block["triton_cpu"] > 0 for block in blocks)
    assert compare([str(out.with_suffix(".json"))] * 2) == 0


def test_a_build_without_a_snapshot_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path)]) == 1
    assert "nothing published" in capsys.readouterr().err
