from __future__ import annotations

import pytest

from benchmarks.coea.choice import ValidationPoint, choose, reaches

POINTS = [ValidationPoint(0.50, 0.01), ValidationPoint(0.497, 0.05), ValidationPoint(0.30, 0.20)]


def test_the_most_novel_setting_that_keeps_99_percent_of_the_quality_is_chosen() -> None:
    assert choose(POINTS, 0.50) == 1


def test_99_percent_of_its_own_best_is_kept_by_a_method_that_does_not_reach_the_baseline() -> None:
    assert choose(POINTS, 0.60) == 1
    assert not reaches(POINTS[1], 0.60)


def test_what_a_method_has_above_the_baseline_is_spent_on_novelty() -> None:
    assert choose(POINTS, 0.30) == 2
    assert reaches(POINTS[2], 0.30)


def test_exploitation_methods_are_chosen_by_quality() -> None:
    assert choose(POINTS, None) == 0


def test_there_must_be_a_setting() -> None:
    with pytest.raises(ValueError, match="no settings"):
        choose([], None)
