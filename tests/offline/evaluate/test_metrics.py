"""Ranking metrics, on lists small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.evaluate.metrics import TargetLists, coverage_at, hits, mean_over_users, ndcg_at, recall_at

RANKED = np.array([[1, 2, 3, 4], [5, 1, 0, 0], [9, 8, 7, 6]], np.int64)
TARGETS = TargetLists(np.array([0, 2, 3, 3]), np.array([2, 9, 5]))


def test_recall_counts_targets_found_over_targets() -> None:
    assert recall_at(RANKED, TARGETS, 1).tolist()[:2] == [0.0, 1.0]
    assert recall_at(RANKED, TARGETS, 4).tolist()[:2] == [0.5, 1.0]
    assert np.isnan(recall_at(RANKED, TARGETS, 4)[2])
    assert mean_over_users(recall_at(RANKED, TARGETS, 4)) == 0.75


def test_ndcg_is_one_for_the_best_order_and_discounts_ranks() -> None:
    best = np.array([[2, 9, 1], [5, 1, 2], [1, 2, 3]], np.int64)
    assert ndcg_at(best, TARGETS, 3).tolist()[:2] == [1.0, 1.0]
    ideal = 1 + 1 / np.log2(3)
    assert ndcg_at(RANKED, TARGETS, 4)[0] == pytest.approx((1 / np.log2(3)) / ideal)
    assert ndcg_at(RANKED, TARGETS, 10)[1] == 1.0


def test_padding_is_never_a_hit() -> None:
    assert not hits(np.zeros((1, 3), np.int64), TargetLists(np.array([0, 1]), np.array([1]))).any()


def test_coverage_counts_items_once_and_no_padding() -> None:
    assert coverage_at(RANKED, 2, 10) == pytest.approx(5 / 10)


def test_a_list_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="found 2 ranked lists for 3 users"):
        recall_at(RANKED[:2], TARGETS, 1)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 12), unique=True, max_size=6), st.sets(st.integers(1, 12))),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 6),
)
def test_recall_and_hits_equal_sets(users: list[tuple[list[int], set[int]]], k: int) -> None:
    ranked = np.array([list_ + [0] * (6 - len(list_)) for list_, _ in users], np.int64)
    targets = TargetLists(
        np.cumsum([0, *(len(wanted) for _, wanted in users)]),
        np.array([item for _, wanted in users for item in sorted(wanted)], np.int64),
    )
    expected = [len(set(list_[:k]) & wanted) / len(wanted) if wanted else np.nan for list_, wanted in users]
    assert np.array_equal(recall_at(ranked, targets, k), expected, equal_nan=True)


def test_choosing_targets_and_users_keeps_the_others_in_place() -> None:
    novel = TARGETS.where(np.array([False, True, True]))
    assert (novel.offsets.tolist(), novel.items.tolist()) == ([0, 1, 2, 2], [9, 5])
    some = TARGETS.of_users(np.array([False, True, True]))
    assert (some.offsets.tolist(), some.items.tolist()) == ([0, 1, 1], [5])
