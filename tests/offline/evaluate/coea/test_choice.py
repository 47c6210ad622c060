from __future__ import annotations

import pytest

from serendipity.offline.evaluate.coea.choice import ValidationPoint, choose

POINTS = [ValidationPoint(0.50, 0.01), ValidationPoint(0.497, 0.05), ValidationPoint(0.30, 0.20)]


def test_the_most_novel_setting_that_keeps_99_percent_of_the_quality_is_chosen() -> None:
    assert choose(POINTS, 0.50) == 1


def test_the_best_quality_is_chosen_where_no_setting_keeps_enough() -> None:
    assert choose(POINTS, 0.60) == 0


def test_exploitation_methods_are_chosen_by_quality() -> None:
    assert choose(POINTS, None) == 0


def test_there_must_be_a_setting() -> None:
    with pytest.raises(ValueError, match="no settings"):
        choose([], None)
