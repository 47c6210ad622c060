from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coea.__main__ import main
from tests.fixtures.small_coevolution import write_small_logs


def test_rows_are_compared_from_logs_to_a_page_and_then_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_logs(tmp_path)
    options = ["--dataset", "small", "--logs", str(tmp_path / "today"), "--out", str(tmp_path / "out"), "--seeds", "2"]
    command = [*options, "--trials", "category ranker"]

    assert main(command) == 0
    first = capsys.readouterr().out
    assert main(command) == 0

    assert "category ranker, seed 1:" in first
    assert "seed 1:" not in capsys.readouterr().out
    page = (tmp_path / "out" / "coea-small.md").read_text(encoding="utf-8")
    assert "`python -m benchmarks.coea --dataset small --trials 'category ranker' --seeds 2`" in page
    assert "no exploitation baseline is among the rows" in page
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "coea-small.json",
        "coea-small.md",
        "coea-small.png",
        "results",
    }


def test_no_seeds_and_unknown_data_are_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds: found '0', expected a whole number of at least 1" in capsys.readouterr().err

    nowhere = ["--dataset", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert main(nowhere) == 1
    assert "nowhere" in capsys.readouterr().err
