"""`serendip logs check`: what it prints of logs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serendipity.tools.cli import main
from tests.fixtures.small_host import write_small_host


def test_logs_are_told_with_what_can_be_made_of_them_and_what_it_may_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_small_host(tmp_path / "host", num_users=30, num_items=120)
    (tmp_path / "build.toml").write_text("[logs]\nnovelty_level = 1\n[canary]\ncount = 20\n")
    words = ["logs", "check", str(tmp_path / "host"), "--config", str(tmp_path / "build.toml")]
    assert main(words) == 0
    told = capsys.readouterr().out
    for part in ("collaborative", "interest", "group", "graph", "merge model", "InterestGPT"):
        assert f" {part} " in told
    assert "A build may take 3 minutes on two cores" in told
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [level["room"]["categories"] for level in found["levels"]] == [4, 12]
    assert {prospect["part"] for prospect in found["prospects"]} >= {"group", "graph"}
    assert found["cost"]["basis"].startswith("an estimate from ")
    assert found["gaps"] == []


def test_logs_of_which_nothing_can_come_end_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_host(tmp_path / "host", num_users=2, num_items=120)
    assert main(["logs", "check", str(tmp_path / "host")]) == 1
    assert (
        "serendip logs: users with clicks (logs.click_types): found 2, expected at least 3" in capsys.readouterr().err
    )
