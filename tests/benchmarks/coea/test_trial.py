from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.coea.code_digest import code_of
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.trial import Answers, fingerprint, run_trials
from tests.benchmarks.coea.worlds import catalogue, cyclists


@dataclass(frozen=True)
class Counting:
    """Answers its seed, and counts how often it is run; ends the run at one seed."""

    name: str
    configuration: dict[str, object] = field(default_factory=dict)
    runs: list[int] = field(default_factory=list)
    killed_at: int | None = None

    def run(self, split: CategorySplit, seed: int) -> Answers:
        if seed == self.killed_at:
            raise KeyboardInterrupt
        self.runs.append(seed)
        return {"seed": np.array([seed])}


@dataclass(frozen=True)
class Lines:
    """Appends what it is told to a file, whatever process tells it."""

    path: Path

    def __call__(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(), catalogue(8))


def test_a_second_run_computes_nothing_again(split: CategorySplit, tmp_path: Path) -> None:
    one, other = Counting("one"), Counting("other")

    run_trials(split, [one], range(2), tmp_path)
    results = run_trials(split, [one, other], range(3), tmp_path)

    assert (sorted(one.runs), sorted(other.runs)) == ([0, 1, 2], [0, 1, 2])
    assert [(found.name, found.seed) for found in results] == [(n, s) for n in ("one", "other") for s in range(3)]
    assert [found.answers["seed"].tolist() for found in results] == [[0], [1], [2]] * 2


def test_a_killed_run_goes_on_where_it_stopped(split: CategorySplit, tmp_path: Path) -> None:
    trial = Counting("one")

    with pytest.raises(KeyboardInterrupt):
        run_trials(split, [replace(trial, killed_at=2)], range(4), tmp_path)
    run_trials(split, [trial], range(4), tmp_path)

    assert trial.runs == [0, 1, 2, 3]


def test_another_configuration_or_other_clicks_are_another_result(split: CategorySplit, tmp_path: Path) -> None:
    trial = Counting("one")
    longer = CategorySplit.leave_last_out(cyclists(length=41), catalogue(8))

    for asked, of in ((split, trial), (split, replace(trial, configuration={"size": 2})), (longer, trial)):
        run_trials(asked, [of], range(1), tmp_path)

    assert trial.runs == [0, 0, 0]


def test_the_same_clicks_have_the_same_fingerprint(split: CategorySplit) -> None:
    again = CategorySplit.leave_last_out(cyclists(), catalogue(8))
    assert again.test.candidates.any()  # what was computed meanwhile makes no difference
    assert fingerprint(again) == fingerprint(split)
    assert fingerprint(replace(split, validation=split.test)) != fingerprint(split)


def test_other_processes_find_the_same_and_report_every_result(split: CategorySplit, tmp_path: Path) -> None:
    told = Lines(tmp_path / "told")
    trials = [Counting("one"), Counting("other")]

    together = run_trials(split, trials, [7, 8], tmp_path / "two", jobs=2, report=told)
    alone = run_trials(split, trials, [7, 8], tmp_path / "one")

    assert [found.answers for found in together] == [found.answers for found in alone]
    lines = told.path.read_text(encoding="utf-8").splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        f"{name}, seed {seed}" for name in ("one", "other") for seed in (7, 8)
    ]


def test_code_is_the_same_but_for_comments_and_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "rule_of_a_row.py"
    monkeypatch.syspath_prepend(tmp_path)

    def digest(text: str) -> str:
        source.write_text(text, encoding="utf-8")
        return code_of("rule_of_a_row")

    source.write_text("", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "rule_of_a_row", importlib.import_module("rule_of_a_row"))

    assert digest("def rule():\n    return 1\n") == digest(
        '"""Row."""\ndef rule():\n    """It."""\n    return 1  # so\n'
    )
    assert digest("def rule():\n    return 1\n") != digest("def rule():\n    return 2\n")
