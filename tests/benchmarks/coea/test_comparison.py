from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.coea.affinity import READ
from benchmarks.coea.coea import CYCLES, WITHOUT_LONG
from benchmarks.coea.comparison import Comparison, Cutoffs, Point, compare
from benchmarks.coea.curve import OverSeeds, novelty_at
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.report import About, write_report
from benchmarks.coea.rows import rows
from benchmarks.coea.trial import TrialResult
from tests.benchmarks.coea.worlds import catalogue, cyclists

ABOUT = About("cycle", "python -m benchmarks.coea", 0.0, 1.0)


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(length=6), catalogue(8))


def ahead(episodes: Episodes, places: int) -> NDArray[np.float32]:
    """Know the cycle: the category so many places on is the likeliest."""
    latest = np.array([recent[0] - 1 for recent in episodes.recent])
    steps = (np.arange(8)[None] - latest[:, None]) % 8
    return -np.abs(steps - places).astype(np.float32)


def trials(split: CategorySplit, ranker: int = 1, seeds: int = 2) -> list[TrialResult]:
    """GRU4Rec knows what is next; the ranker names what is `ranker` places on, and the LLMs what is two."""
    both = (("validation", split.validation), ("test", split.test))
    found = []
    for seed in range(seeds):
        gru = {name: ahead(episodes, 1) for name, episodes in both}
        found.append(TrialResult("GRU4Rec", seed, 1.0, gru))
        found.append(TrialResult("category ranker", seed, 1.0, {name: ahead(one, ranker) for name, one in both}))
        llms = {
            f"{name} {kind}{cycles}{variant}": ahead(episodes, 2)
            for name, episodes in both
            for kind in ("novelty", "alignment")
            for cycles in CYCLES
            for variant in ("", WITHOUT_LONG)
        }
        cosines = {name: np.full(split.test.targets.shape, 0.5, np.float32) for name in READ}
        found.append(TrialResult("CoEA", seed, 1.0, llms | cosines))
    return found


def made(split: CategorySplit, found: list[TrialResult]) -> Comparison:
    return compare(split, rows(), found, Cutoffs.of(split))


def test_rows_of_trials_that_were_not_run_are_left_out(split: CategorySplit) -> None:
    found = made(split, [one for one in trials(split) if one.name == "category ranker"])

    assert [result.name for result in found.results] == [
        "Popularity", "Popularity + bonus", "Category ranker + bonus",
    ]  # fmt: skip


def test_a_setting_is_the_most_novel_of_those_as_good_as_the_baseline(split: CategorySplit) -> None:
    found = made(split, trials(split))
    gru, control = found.named("GRU4Rec"), found.named("Category ranker + bonus")

    assert gru is not None
    assert control is not None
    assert gru.by_seed("C-H@1").tolist() == [1.0, 1.0]
    good = [point.novelty for point in control.validation if point.quality >= 0.99]
    assert control.validation[control.chosen].quality >= 0.99
    assert control.validation[control.chosen].novelty == max(good)


def test_what_does_not_help_on_validation_is_left_out_of_the_composed_list(split: CategorySplit) -> None:
    composed = made(split, trials(split)).named("CoEA composed")

    assert composed is not None
    assert composed.by_seed("C-H@1").tolist() == [1.0, 1.0]


def test_the_page_says_what_came_of_it(split: CategorySplit, tmp_path: Path) -> None:
    found = trials(split, ranker=3)

    write_report(made(split, found), found, split, tmp_path, ABOUT)

    page = (tmp_path / "coea-cycle.md").read_text(encoding="utf-8")
    assert "| GRU4Rec | 1.0000 ± 0.0000 |" in page
    assert "**CoEA composed.** Validation" in page
    assert "* NCP@5 at GRU4Rec's own C-H@1: nothing can be said of" in page
    assert "## Along the trigger" in page
    assert "| Category ranker + bonus | 0.5 |" in page
    assert "## At equal quality" in page
    assert "| clicked next | 0.5000 ± 0.0000 |" in page
    content = json.loads((tmp_path / "coea-cycle.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in content["rows"]] == [row.name for row in rows()]
    assert (tmp_path / "coea-cycle.png").read_bytes().startswith(b"\x89PNG")


def test_without_some_users_the_same_choices_are_measured_on_the_others(split: CategorySplit) -> None:
    comparison = made(split, trials(split))
    users = np.arange(len(split.test)) % 2 == 0

    found = comparison.among(users)

    whole, part = comparison.results[0].per_user["C-H@1"], found.results[0].per_user["C-H@1"]
    assert np.array_equal(part[:, users], whole[:, users], equal_nan=True)
    assert np.isnan(part[:, ~users]).all()


def points(*seeds: list[tuple[float, float]]) -> list[Point]:
    found = []
    for at in zip(*seeds, strict=True):
        quality, novelty = (np.array([seed[i] for seed in at]) for i in (0, 1))
        found.append(Point({"bonus": 0.0}, {"C-H@1": quality, "NCP@5": novelty}))
    return found


def test_novelty_is_read_off_where_the_quality_is_what_is_wanted() -> None:
    curve = points([(0.5, 0.1), (0.4, 0.2), (0.2, 0.3)], [(0.6, 0.1), (0.5, 0.2), (0.3, 0.3)])

    found = novelty_at(curve, "C-H@1", "NCP@5", np.array([0.45, 0.4]))

    assert found == pytest.approx(np.array([0.15, 0.25]))
    assert novelty_at(curve, "C-H@1", "NCP@5", np.array([0.45, 0.7])) is None
    # A curve that is better throughout has what its end has.
    assert novelty_at(curve, "C-H@1", "NCP@5", np.array([0.1, 0.1])) == pytest.approx(np.array([0.3, 0.3]))


def test_intervals_are_over_seeds() -> None:
    found = OverSeeds.of(np.array([1.0, 2.0]))
    # s / √2 = 0.5, t(0.975, 1) = 12.706.
    assert (found.value, found.high) == pytest.approx((1.5, 1.5 + 12.7062 * 0.5), rel=1e-4)
    assert OverSeeds.of(np.array([1.0])) == OverSeeds(1.0, 1.0, 1.0)


def test_some_trials_measure_fewer_seeds(split: CategorySplit) -> None:
    found = made(split, trials(split, seeds=1))
    assert all(len(result.by_seed("C-H@1")) == 1 for result in found.results)
    assert replace(found, results=()).named("GRU4Rec") is None
