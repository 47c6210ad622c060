from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.metrics import (
    category_hit,
    category_ndcg,
    mean,
    measures,
    proportion,
    ranked,
)
from benchmarks.coea.protocol import CategorySplit
from tests.benchmarks.coea.worlds import catalogue, histories

TOP = np.array([[3, 0, 4], [1, -1, -1], [2, 3, 1]])
TARGETS = np.array([[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], np.bool_)


def test_a_hit_is_any_target_among_the_first_k_and_users_without_targets_do_not_count() -> None:
    assert category_hit(TOP, TARGETS, 1)[:2].tolist() == [0.0, 0.0]
    assert category_hit(TOP, TARGETS, 2)[:2].tolist() == [1.0, 0.0]
    assert np.isnan(category_hit(TOP, TARGETS, 2)[2])
    assert mean(category_hit(TOP, TARGETS, 2)) == 0.5


def test_ndcg_divides_by_the_best_list_of_that_length() -> None:
    gains = 1 / np.log2(3) + 1 / np.log2(4)

    assert category_ndcg(TOP, TARGETS, 3)[0] == pytest.approx(gains / (1 + 1 / np.log2(3)))
    assert category_ndcg(TOP, TARGETS, 1)[0] == 0.0
    assert category_ndcg(np.array([[0, 4]]), TARGETS[:1], 2)[0] == pytest.approx(1.0)


def test_what_is_chosen_of_a_list_is_divided_by_all_categories() -> None:
    tail = np.array([[0, 0, 1, 1, 0]] * 3, np.bool_)

    assert proportion(TOP, np.ones((3, 5), np.bool_), 3).tolist() == pytest.approx([3 / 5, 1 / 5, 3 / 5])
    assert proportion(TOP, tail, 2).tolist() == pytest.approx([1 / 5, 0, 2 / 5])


def test_lists_hold_candidates_alone_and_end_where_scores_are_minus_infinity() -> None:
    split = CategorySplit.leave_last_out(histories([[1, 2, 3, 4]]), catalogue(6))  # C_s at the test: 3, 2, 1
    scores = np.array([[9, 9, 9, 1, 2, -np.inf]], np.float32)

    assert ranked(scores, split.test, 4).tolist() == [[4, 3, -1, -1]]


def test_equal_scores_come_in_the_catalogue_s_order() -> None:
    split = CategorySplit.leave_last_out(histories([[1, 2, 3, 4]]), catalogue(6))

    assert ranked(np.zeros((1, 6), np.float32), split.test, 3).tolist() == [[3, 4, 5]]


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    split = CategorySplit.leave_last_out(histories([[1, 2, 3, 4]]), catalogue(6))

    with pytest.raises(ValueError, match=r"NaN"):
        ranked(np.full((1, 6), np.nan, np.float32), split.test)
    with pytest.raises(ValueError, match=r"shape \(1, 5\), expected \(1, 6\)"):
        ranked(np.zeros((1, 5), np.float32), split.test)


def test_novel_figures_count_targets_in_no_click_of_the_history() -> None:
    split = CategorySplit.leave_last_out(histories([[5, 1, 2, 3, 5], [4, 1, 2, 3, 6]]), catalogue(6))
    top = np.array([[4], [5]])

    found = measures(top, split.test, split, 1)

    assert found["C-H@1"].tolist() == [1.0, 1.0]
    assert np.isnan(found["novel C-H@1"][0])
    assert found["novel C-H@1"][1] == 1.0
