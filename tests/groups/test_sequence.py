"""The long and the short sequence of CoEA's DSIE."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serendipity.groups.sequence import LongSequenceRule, kept_clicks, latest_distinct, long_sequence
from serendipity.novelty import Clicks


def _clicks(items: list[int], categories: list[int]) -> Clicks:
    """Clicks given oldest first."""
    n = len(items)
    return Clicks(
        np.array(items[::-1], np.int64), np.array(categories[::-1], np.int32), np.arange(n, 0, -1, dtype=np.int64)
    )


def test_a_click_is_kept_once_the_user_has_clicked_so_often() -> None:
    rule = LongSequenceRule(threshold=2, counted="category", length=4, min_clicks=1)
    kept = kept_clicks(np.array([5, 6, 7, 8, 9]), np.array([1, 1, 2, 1, 2], np.int32), rule)
    assert kept.tolist() == [False, True, False, True, True]


def test_items_are_counted_where_the_rule_says_so() -> None:
    rule = LongSequenceRule(threshold=2, counted="item", length=4, min_clicks=1)
    assert kept_clicks(np.array([5, 6, 5]), np.array([1, 1, 1], np.int32), rule).tolist() == [False, False, True]


def test_the_long_sequence_is_oldest_first_with_zeros_in_front() -> None:
    rule = LongSequenceRule(threshold=1, counted="item", length=4, min_clicks=1)
    assert long_sequence(_clicks([5, 0, 7], [1, 1, 2]), rule).tolist() == [0, 0, 5, 7]
    assert long_sequence(_clicks([1, 2, 3, 4, 5], [1] * 5), rule).tolist() == [2, 3, 4, 5]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30),
    st.integers(0, 30),
    st.integers(1, 3),
    st.sampled_from(["item", "category"]),
)
def test_what_is_kept_never_changes_afterwards(
    clicks: list[tuple[int, int]], cut: int, threshold: int, counted: str
) -> None:
    rule = LongSequenceRule(threshold, "item" if counted == "item" else "category", 50, 1)
    items = np.array([item for item, _ in clicks], np.int64)
    categories = np.array([category for _, category in clicks], np.int32)
    whole = kept_clicks(items, categories, rule)
    assert kept_clicks(items[:cut], categories[:cut], rule).tolist() == whole[:cut].tolist()


def test_latest_distinct_skips_repetitions_and_clicks_without_category() -> None:
    assert latest_distinct(_clicks([1, 2, 3, 4, 5, 6], [9, 4, 2, 3, 0, 2])) == [2, 3, 4]
    assert latest_distinct(Clicks.empty()) == []
