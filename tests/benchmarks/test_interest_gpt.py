"""The throughput benchmark of InterestGPT: real logs, a real language model, the real tritonserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.interest_gpt import MODES, Throughput, machines_needed, main
from serendipity.channel.nearline.interest_gpt import Answer
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.small_host import write_small_host
from tests.fixtures.tiny_interest_gpt import make_tiny_interest_gpt


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build directory with logs and an InterestGPT."""
    root = tmp_path_factory.mktemp("build")
    write_small_host(root / "host", num_users=12, num_items=60)
    build_logs(root / "host", root / "logs", LogsConfig(novelty_level=1))
    make_tiny_interest_gpt(root / "interest_gpt", max_new_tokens=400, max_batch=4)
    return root


def test_machines_are_counted_for_the_whole_population() -> None:
    assert machines_needed(10_000_000, 7, 16.6) == 1
    assert machines_needed(10_000_000, 7, 16.5) == 2
    assert machines_needed(604_800, 7, 0.1) == 10


def test_rates_count_users_and_tokens_by_the_time_of_the_calls() -> None:
    row = Throughput(2, "writing", 4.0, [Answer("{}", 100, 8), Answer('{"interests": []}', 60, 4)])
    assert row.users_per_second == 0.5
    assert row.prompt_tokens_per_second == 40
    assert row.new_tokens_per_second == 3
    assert row.share_parsed == 0.5


@pytest.mark.integration
def test_one_command_measures_and_reports(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    arguments = ["--build", str(build), "--launch", "--seconds", "0.1", "--batches", "4", "1", "--out", str(report)]
    assert main([*arguments]) == 0
    text = report.read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "users/s" not in line]
    assert [(row[0], row[1]) for row in rows] == [(f"| {size}", mode) for size in (1, 4) for mode in MODES]
    assert all(float(row[2]) > 0 for row in rows)
    assert [row[4] for row in rows if row[1] == "writing"] == ["1.00"] * 2
    assert [row[6] for row in rows if row[1] == "scoring"] == ["0"] * 2
    assert ", scoring): 16.53 ÷ " in text
    assert "10,000,000 ÷ (7 × 86,400 s) = 16.53 users/s" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "5"], "--batches: found 5, expected 1 to 4, the model's max_batch"),
        (["--model", "elsewhere"], "interest_gpt.json: cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    build: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--build", str(build), "--launch", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_triton_that_is_away_is_named(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(build), "--url", "127.0.0.1:1"]) == 1
    assert "at 127.0.0.1:1: UNAVAILABLE" in capsys.readouterr().err
