from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import coea_studies
from benchmarks.coea import __main__ as coea
from tests.fixtures.small_coevolution import write_small_logs


@pytest.mark.parametrize("package", ["recbole", "colorlog"])
def test_a_missing_library_is_named_with_its_extra_before_anything_is_read(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = "benchmarks.coea.recbole_library"
    monkeypatch.setattr(f"{library}.find_spec", lambda name: None if name == package else find_spec(name))
    nowhere = str(tmp_path / "logs")
    assert coea.main(["--logs", nowhere, "--out", str(tmp_path / "out"), "--methods", "SASRec"]) == 1
    error = capsys.readouterr().err
    assert f"found no package {package}," in error
    assert "serendipity-recall[evaluation]" in error
    assert not (tmp_path / "out").exists()


def test_rows_are_compared_from_logs_to_a_page_and_then_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_logs(tmp_path)
    options = ["--dataset", "small", "--logs", str(tmp_path / "today"), "--out", str(tmp_path / "out"), "--seeds", "2"]
    command = [*options, "--methods", "Popularity", "HUCB"]

    assert coea.main(command) == 0
    first = capsys.readouterr().out
    assert coea.main(command) == 0

    assert "HUCB, seed 1:" in first
    assert "seed 1:" not in capsys.readouterr().out
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "`python -m benchmarks.coea --dataset small --methods Popularity HUCB --seeds 2`" in page
    assert "no exploitation baseline is among the rows" in page
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "coea.json",
        "report.md",
        "results",
        "trade-off.png",
    }


@pytest.mark.parametrize("main", [coea.main, coea_studies.main])
def test_no_seeds_and_unknown_data_are_refused_in_words(
    main: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds: found '0', expected a whole number of at least 1" in capsys.readouterr().err

    nowhere = ["--dataset", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert main(nowhere) == 1
    assert "nowhere" in capsys.readouterr().err
