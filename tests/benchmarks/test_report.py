"""A report as a page and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ratios import ratios
from benchmarks.report import Agreement, NoReport, Number, Report, read_ratios
from tests.benchmarks.blocks import blocks


@pytest.fixture
def report() -> Report:
    ours, others = blocks("channel", [4, 6, 8]), blocks("floor", [2, 3, 4])
    return Report(
        "Benchmark of Recall",
        {"machine": "2 cores"},
        [*ours, *others],
        ratios("1 caller", ours, others),
        [Agreement.of("channel, floor", {"a": {"x", "y"}, "b": {"x"}}, {"a": {"x"}, "b": {"x"}, "c": {"z"}})],
        [Number("private memory", [10.0, 30.0], "MiB")],
    )


def test_the_page_shows_systems_ratios_agreement_and_other_numbers(report: Report) -> None:
    page = report.to_markdown()
    assert page.startswith("# Benchmark of Recall\n\n* machine: 2 cores\n")
    assert "## 1 caller" in page
    assert "| channel | 30 | 167 | 6.00 | 8.00 | 3.00 | 1.00 | 25% |" in page
    assert "| | requests/s | p50 | server CPU | Triton CPU | all CPU | p99 |" in page
    assert "| channel ÷ floor | 0.50 (0.50 to 0.50) | 2.00 (2.00 to 2.00) |" in page
    assert "| channel, floor | 2 | 0.750 | 0.50 |" in page
    assert "| private memory | 20.00 MiB | 10.00 | 30.00 | 2 |" in page


def test_both_files_are_written_and_the_json_holds_every_block(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "bench.md")
    assert (tmp_path / "bench.md").read_text() == report.to_markdown()
    assert read_ratios(tmp_path / "bench.json") == (report.ratios, 0.25)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert len(found["blocks"]) == 6
    assert found["blocks"][0]["milliseconds"] == [4] * 10


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read"),
        ("# a page", "cannot be read"),
        ("[]", "not the JSON of a report"),
        ('{"kind": "another", "version": 1}', "found another"),
        ('{"kind": "serendipity channel benchmark", "version": 1, "ratios": [{"name": "x"}]}', "not the JSON"),
    ],
)
def test_what_is_no_report_is_refused_by_name(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NoReport, match=why) as refused:
        read_ratios(path)
    assert str(path) in str(refused.value)
