from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.coea.comparison import Comparison, Cutoffs, compare, run_comparison
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Setting
from benchmarks.coea.references import methods as references
from benchmarks.coea.registry import NAMES, find_methods
from benchmarks.coea.report import (
    JSON_REPORT,
    MARKDOWN_REPORT,
    TRADE_OFF_PLOT,
    About,
    ratios,
    write_report,
)
from tests.benchmarks.coea.worlds import catalogue, cyclists


@dataclass(frozen=True)
class Next:
    """Knows the cycle: names the category `ahead` places on first; counts its fits."""

    name: str
    family: Family
    settings: tuple[Setting, ...] = ({"ahead": 1.0}, {"ahead": 2.0})
    configuration: dict[str, object] = field(default_factory=dict)
    fits: list[int] = field(default_factory=list)

    def fit(self, split: CategorySplit, seed: int) -> Next:
        self.fits.append(seed)
        return self

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        size = episodes.targets.shape[1]
        latest = np.array([recent[0] - 1 for recent in episodes.recent])
        steps = (np.arange(size)[None] - latest[:, None]) % size
        return -np.abs(steps - setting["ahead"]).astype(np.float32)


def cyclists_split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(), catalogue(8))


def run(tmp_path: Path, methods: list[Next], seeds: int = 2) -> tuple[CategorySplit, Comparison]:
    split = cyclists_split()
    lists = run_comparison(split, methods, range(seeds), tmp_path)
    return split, compare(split, methods, lists, Cutoffs.of(split))


def test_a_second_run_computes_nothing_again_and_more_seeds_only_the_new(tmp_path: Path) -> None:
    method = Next("next", "exploitation")

    _, first = run(tmp_path, [method])
    _, second = run(tmp_path, [method])
    run(tmp_path, [method], seeds=3)

    assert method.fits == [0, 1, 2]
    assert (first.results[0].by_seed("C-H@1") == second.results[0].by_seed("C-H@1")).all()


def test_another_configuration_is_another_result(tmp_path: Path) -> None:
    one, other = Next("next", "exploitation"), Next("next", "exploitation", configuration={"size": 2})

    run(tmp_path, [one])
    run(tmp_path, [other])

    assert other.fits == [0, 1]


def test_the_setting_reported_is_the_best_on_validation(tmp_path: Path) -> None:
    _, comparison = run(tmp_path, [Next("next", "exploitation"), Next("explorer", "exploration")])

    assert comparison.results[0].setting == {"ahead": 1.0}
    assert comparison.results[1].setting == {"ahead": 1.0}
    assert comparison.results[0].by_seed("C-H@1").tolist() == [1.0, 1.0]


def test_worker_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    alone = run_comparison(cyclists_split(), references(), range(2), tmp_path / "one")
    together = run_comparison(cyclists_split(), references(), range(2), tmp_path / "two", jobs=2)

    assert [(found.name, found.seed) for found in alone] == [(found.name, found.seed) for found in together]
    for one, two in zip(alone, together, strict=True):
        assert all((one.answers[name] == two.answers[name]).all() for name in ("validation", "test"))


def test_the_report_names_every_method_and_how_sure_ratios_are(tmp_path: Path) -> None:
    methods = [Next("next", "exploitation"), Next("explorer", "exploration")]
    split, comparison = run(tmp_path / "results", methods)

    write_report(comparison, split, tmp_path, About("cycle", "python -m benchmarks.coea", 0.0, 1.0))

    page = (tmp_path / MARKDOWN_REPORT).read_text(encoding="utf-8")
    assert "| next | 1.0000 ± 0.0000 |" in page
    assert "| | C-H@1, next | C-N@5, next |" in page
    assert "| explorer | 1.000 [1.000, 1.000] |" in page
    content = json.loads((tmp_path / JSON_REPORT).read_text(encoding="utf-8"))
    assert [method["name"] for method in content["methods"]] == ["next", "explorer"]
    assert (tmp_path / TRADE_OFF_PLOT).read_bytes().startswith(b"\x89PNG")


def test_an_ablation_is_compared_with_the_whole_method(tmp_path: Path) -> None:
    methods = [Next("next", "exploitation"), Next("CoEA", "coea"), Next("CoEA w/o Long", "coea")]
    split, comparison = run(tmp_path / "results", methods)

    write_report(comparison, split, tmp_path, About("cycle", "python -m benchmarks.coea", 0.0, 1.0))

    page = (tmp_path / MARKDOWN_REPORT).read_text(encoding="utf-8")
    after = page[page.index("To CoEA:") :]
    assert "| CoEA w/o Long | 1.000 [1.000, 1.000] |" in after
    assert "| CoEA |" not in after[: after.index("![")]


def test_nothing_is_compared_with_a_baseline_at_zero(tmp_path: Path) -> None:
    _, comparison = run(tmp_path, [Next("next", "exploitation"), Next("explorer", "exploration")])
    next_one, explorer = comparison.results
    empty = {**next_one.per_user, "CLTP@5": np.zeros_like(next_one.per_user["CLTP@5"])}

    found = ratios(replace(comparison, results=(replace(next_one, per_user=empty), explorer)), explorer)

    assert ("C-H@1", "next") in found
    assert ("CLTP@5", "next") not in found


def test_without_some_users_the_same_choices_are_measured_on_the_others(tmp_path: Path) -> None:
    split, comparison = run(tmp_path / "results", [Next("next", "exploitation")])
    users = np.arange(len(split.test)) % 2 == 0

    found = comparison.among(users)

    whole, part = comparison.results[0].per_user["C-H@1"], found.results[0].per_user["C-H@1"]
    assert np.array_equal(part[:, users], whole[:, users], equal_nan=True)
    assert np.isnan(part[:, ~users]).all()


def test_unknown_methods_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="found Nobody, expected some of Random"):
        find_methods(["Nobody"])


def test_methods_come_in_the_report_s_order() -> None:
    found = partial(find_methods, ["NLB", "Random"])()

    assert [method.name for method in found] == ["Random", "NLB"]
    assert "EXPLORE" in NAMES
