"""Which changes between two reports count as worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare import got_worse, main
from benchmarks.ratios import Ratio
from benchmarks.report import Report


def _written(path: Path, *ratios: Ratio) -> str:
    path.write_text(Report("", {}, [], ratios).to_json())
    return str(path)


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ((1.0, 0.9, 1.1), (1.3, 1.2, 1.4), True),
        # Within the spread of what was before, or of what is now.
        ((1.0, 0.9, 1.4), (1.3, 1.2, 1.4), False),
        ((1.0, 0.9, 1.1), (1.3, 0.9, 1.4), False),
        ((1.3, 1.2, 1.4), (1.0, 0.9, 1.1), False),
    ],
)
def test_worse_is_outside_both_spreads_on_the_worse_side(
    before: tuple[float, float, float], after: tuple[float, float, float], worse: bool
) -> None:
    assert got_worse(Ratio("p50", *before), Ratio("p50", *after)) == worse
    # Of requests a second less is worse.
    less = Ratio("requests/s", *after, higher_is_better=True), Ratio("requests/s", *before, higher_is_better=True)
    assert got_worse(*less) == worse


def test_both_are_shown_and_the_status_tells_whether_any_got_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, slow = Ratio("p50", 1.0, 0.9, 1.1), Ratio("p50", 1.3, 1.2, 1.4)
    before = _written(tmp_path / "before.json", fast, Ratio("old", 1.0, 1.0, 1.0))
    after = _written(tmp_path / "after.json", slow, Ratio("new", 1.0, 1.0, 1.0))
    assert main([before, after]) == 1
    out = capsys.readouterr().out
    assert "| p50 | 1.000 (0.900 to 1.100) | 1.300 (1.200 to 1.400) | worse |" in out
    assert "| old | 1.000 (1.000 to 1.000) |  | in one report only |" in out
    assert "1 of 1 got worse" in out
    assert main([after, before]) == 0
    assert "| p50 | 1.300 (1.200 to 1.400) | 1.000 (0.900 to 1.100) | better |" in capsys.readouterr().out
    assert main([before, before]) == 0


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _written(tmp_path / "a.json", Ratio("p50", 1.0, 0.9, 1.1))
    other = _written(tmp_path / "b.json", Ratio("p99", 1.0, 0.9, 1.1))
    for arguments, why in (([report, str(tmp_path / "none.json")], "cannot be read"), ([report, other], "in common")):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert why in captured.err
        assert captured.err.count("\n") == 1
