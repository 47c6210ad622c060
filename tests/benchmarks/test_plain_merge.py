"""The parts of the plain merge that the comparison with the channel does not reach."""

from __future__ import annotations

import numpy as np

from benchmarks.plain_merge import place_in_category, select


def test_the_cap_goes_before_the_order_and_gives_way_before_the_answer_goes_short() -> None:
    # Six of each category by the cap; then the best of those that are left.
    assert select(np.repeat(np.array([1, 2], np.int32), [30, 10]), 20).tolist() == [*range(14), *range(30, 36)]
    # Three of category 1 by the cap, and all others are of other categories.
    assert select(np.array([1] * 30 + list(range(2, 12)), np.int32), 10).tolist() == [0, 1, 2, *range(30, 37)]


def test_places_are_counted_by_category() -> None:
    assert place_in_category(np.array([3, 1, 3, 3, 1, 2], np.int32)).tolist() == [0, 0, 1, 2, 1, 0]
