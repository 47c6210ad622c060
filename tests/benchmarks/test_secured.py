"""What TLS, tokens and traces cost, on a small build with the real Triton."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.secured import main
from benchmarks.synthetic_snapshot import Sizes, write_build

SMALL = Sizes(items=2_000, dim=16, categories=30, users=40, interest_dim=24)


@pytest.mark.integration
def test_channels_with_and_without_are_asked_in_turn_and_spans_reach_the_collector(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path)
    out = tmp_path / "secured.md"
    options = ["--calls", "24", "--rounds", "3", "--callers", "3", "--count", "10"]
    assert main(["--build", str(tmp_path), *options, "--out", str(out)]) == 0
    page = out.read_text()
    spans = re.search(r"spans that reached the collector: ([\d,]+)", page)
    assert spans is not None
    # Of every call to the channel that traces all of them, a span at least.
    assert int(spans[1].replace(",", "")) >= 2 * 24
    found = json.loads(out.with_suffix(".json").read_text())
    assert {block["system"] for block in found["blocks"]} == {"plain", "TLS and token", "1 % traced", "all traced"}
    assert "TLS and token ÷ plain" in page
