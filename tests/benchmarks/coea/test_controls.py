from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.coea.category_ranker import RankerConfig, fit_ranker
from benchmarks.coea.comparison import Cutoffs, compare, run_comparison
from benchmarks.coea.controls import PopularityBonus, RankerBonus
from benchmarks.coea.metrics import ranked
from benchmarks.coea.protocol import CategorySplit, Family
from benchmarks.coea.report import MARKDOWN_REPORT, About, ratios, write_report
from benchmarks.coea.trial import TrialResult
from tests.benchmarks.coea.test_comparison import Next, cyclists_split
from tests.benchmarks.coea.worlds import catalogue, histories

RANKER = RankerConfig(epochs=1, moments=4)


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    """Trained on: A 4 clicks, B 3, C 1, D 2, E 1. The first user's latest: E, C, B; clicked before: A."""
    clicks = [[1, 1, 2, 3, 5, 4, 4], [2, 1, 2, 1, 4, 4, 5, 5]]
    return CategorySplit.leave_last_out(histories(clicks), catalogue(5))


def test_popularity_and_a_bonus_by_hand(split: CategorySplit) -> None:
    assert split.category_clicks.tolist() == [4, 3, 1, 2, 1]
    assert split.validation.recent[0] == (5, 3, 2)
    assert split.validation.clicked[0].tolist() == [True, True, True, False, True]
    fitted = PopularityBonus().fit(split, 0)

    for bonus in (0.0, 0.5, 1.0):
        row = fitted.scores(split.validation, {"bonus": bonus})[0].tolist()
        assert row == pytest.approx([np.log(5), np.log(4), np.log(2), np.log(3) + bonus, np.log(2)])

    def first(bonus: float) -> int:
        return int(ranked(fitted.scores(split.validation, {"bonus": bonus}), split.validation, 1)[0, 0])

    # Of the candidates A and D: log 5 = 1.61 against log 3 + bonus = 1.10 + bonus.
    assert [first(bonus) for bonus in (0.0, 0.5, 1.0)] == [0, 0, 3]


def test_what_is_known_at_the_test_is_no_longer_new(split: CategorySplit) -> None:
    fitted = PopularityBonus().fit(split, 0)

    at_test = fitted.scores(split.test, {"bonus": 4.0})[0]

    # The click held out for validation is known by then, and not counted.
    assert split.test.clicked[0].all()
    assert at_test.tolist() == pytest.approx(np.log1p([4, 3, 1, 2, 1]))


def test_the_ranker_s_scores_are_raised_by_the_bonus_where_nothing_was_clicked(split: CategorySplit) -> None:
    relevance = fit_ranker(split, RANKER, 3).scores(split.validation)

    scores = RankerBonus(ranker=RANKER).fit(split, 3).scores(split.validation, {"bonus": 2.0})

    assert scores.dtype == np.float32
    assert scores == pytest.approx(relevance + 2.0 * ~split.validation.clicked)


@pytest.mark.parametrize(("family", "chosen"), [("reference", 0), ("control", 1), ("exploration", 1)])
def test_a_control_is_chosen_as_explorers_are(split: CategorySplit, family: Family, chosen: int) -> None:
    methods = [Next("next", "exploitation"), Next("row", family)]
    # Of as good lists (D is the first user's target) the second setting's name more that is new.
    lists = np.array([[[3], [0]], [[3], [2]]], np.int16)
    found = [TrialResult(method.name, 0, 1.0, {"validation": lists, "test": lists}) for method in methods]

    assert compare(split, methods, found, Cutoffs(1, 1, (1,))).results[1].chosen == chosen


def test_everyone_is_compared_with_the_best_control(tmp_path: Path) -> None:
    split = cyclists_split()
    methods = [Next("next", "exploitation"), Next("bonus", "control"), Next("CoEA", "coea")]

    found = compare(split, methods, run_comparison(split, methods, [0], tmp_path / "results"), Cutoffs.of(split))
    write_report(found, split, tmp_path, About("cycle", "python -m benchmarks.coea", 0.0, 1.0))

    assert ("C-H@1", "bonus") in ratios(found, found.results[2])
    page = (tmp_path / MARKDOWN_REPORT).read_text(encoding="utf-8")
    after = page[page.index("To the control that is best by the measure:") :]
    assert "| CoEA | 1.000 [1.000, 1.000] |" in after
    assert "| bonus | – |" in after
