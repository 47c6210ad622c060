"""`python -m benchmarks.coea_studies` from logs to a page, and nothing computed twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coea_studies import main
from tests.fixtures.small_coevolution import write_small_logs


def test_a_study_is_run_from_logs_and_then_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_logs(tmp_path)
    options = ["--dataset", "small", "--logs", str(tmp_path / "today"), "--out", str(tmp_path / "out"), "--seeds", "1"]
    command = [*options, "--studies", "rounds", "--rounds", "1", "--validation-users", "9"]

    assert main(command) == 0
    first = capsys.readouterr().out
    assert main(command) == 0

    assert "CoEA w/o KL, seed 0:" in first
    assert "seed 0:" not in capsys.readouterr().out
    page = (tmp_path / "out" / "rounds.md").read_text(encoding="utf-8")
    assert "--studies rounds --rounds 1 --validation-users 9 --seeds 1" in page
    assert "9 users of the validation" in page
    assert len(list((tmp_path / "out" / "results").rglob("output.pkl"))) == 2
