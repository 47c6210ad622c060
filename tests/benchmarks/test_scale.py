"""The whole benchmark of large catalogues on two small builds, with the real Triton."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import main
from benchmarks.synthetic_snapshot import Sizes, write_build


@pytest.mark.integration
def test_one_command_measures_recall_memory_and_a_swap(tmp_path: Path) -> None:
    for items in (2_000, 1_000):
        write_build(Sizes(items=items, dim=16, categories=30, users=40, interest_dim=24), tmp_path / str(items))
    out = tmp_path / "scale.md"
    builds = ["--large", str(tmp_path / "2000"), "--small", str(tmp_path / "1000")]
    assert main([*builds, "--calls", "20", "--rounds", "2", "--swaps", "1", "--out", str(out)]) == 0
    found = json.loads(out.with_suffix(".json").read_text())
    assert "1 caller: p50, 2,000 items ÷ 1,000 items" in {ratio["name"] for ratio in found["ratios"]}
    numbers = {number["name"]: number for number in found["numbers"]}
    private = numbers["private memory of a worker, 2,000 items"]["values"]
    assert len(private) == 2
    assert all(10 < value < 1_000 for value in private)
    assert len(numbers["longest wait while another snapshot is swapped in, 2,000 items"]["values"]) == 1
    # What was copied for the swap is gone.
    assert sorted(path.name for path in (tmp_path / "2000").iterdir()) == ["snapshots", "towers"]
