from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.item_scores import category_scores, items_repeat, leave_out_clicked
from benchmarks.coea.protocol import CategorySplit
from tests.benchmarks.coea.worlds import catalogue, histories

SCORES = np.array([[0.0, 1.0, 2.0, -np.inf, -np.inf, -np.inf]], np.float32)


def test_a_category_is_worth_the_log_of_its_items_exponentials() -> None:
    pooled = category_scores(SCORES, catalogue(3))

    assert pooled[0].tolist() == pytest.approx([np.log(1 + np.e), 2.0, -np.inf])


def test_a_large_score_does_not_overflow() -> None:
    assert category_scores(np.full((1, 2), 1e4, np.float32), catalogue(1))[0, 0] == pytest.approx(1e4, rel=1e-3)


def test_clicked_items_are_left_out_of_their_users_alone() -> None:
    split = CategorySplit.leave_last_out(histories([[1, 2, 3], [3, 1, 2]]), catalogue(3))
    scores = np.zeros((2, 6), np.float32)

    leave_out_clicked(scores, split.test, slice(0, 2))

    assert np.flatnonzero(np.isneginf(scores[0])).tolist() == [0, 2]
    assert np.flatnonzero(np.isneginf(scores[1])).tolist() == [0, 4]


def test_repeated_clicks_are_noticed() -> None:
    assert items_repeat(histories([[1, 1]]))
    assert not items_repeat(histories([[1, 2], [1, 2]]))
