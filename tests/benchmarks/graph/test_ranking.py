import math

import numpy as np
import pytest

from benchmarks.graph.ranking import rank

SCORES = np.array([[9, 8, 7, 6, 5], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]], np.float32)
KNOWN = np.array([[0, 1], [0, 4]])
WANTED = np.array([[0, 0, 1], [1, 3, 0]])


def test_recall_and_ndcg_match_their_definitions() -> None:
    found = rank(lambda users: SCORES[users].copy(), 5, KNOWN, WANTED, (1, 3, 4))
    assert found.users.tolist() == [0, 1]
    # User 0 is shown 1 2 3 4 and wants 1 and 3; user 1 is shown 3 2 1 0 and wants 0.
    assert found.recall[1].tolist() == [0.5, 0.0]
    assert found.recall[3].tolist() == [1.0, 0.0]
    assert found.recall[4].tolist() == [1.0, 1.0]
    assert found.ndcg[1].tolist() == [1.0, 0.0]
    assert found.ndcg[3][0] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))
    assert found.ndcg[4][1] == pytest.approx(1 / math.log2(5))


def test_what_is_known_is_no_candidate() -> None:
    found = rank(lambda users: SCORES[users].copy(), 5, WANTED, WANTED, (5,))
    # All items are within five places, so only the mask, which ranks them last, can keep gains from the top.
    assert found.ndcg[5][1] == pytest.approx(1 / math.log2(6))


def test_a_cutoff_beyond_the_items_counts_all_of_them() -> None:
    found = rank(lambda users: SCORES[users].copy(), 5, KNOWN, WANTED, (100,))
    assert found.recall[100].tolist() == [1.0, 1.0]


def test_users_are_ranked_alike_in_any_number() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((2500, 40), np.float32)
    wanted = np.stack([np.arange(2500), rng.integers(40, size=2500)])
    known = np.stack([np.arange(2500), (wanted[1] + 1) % 40])
    found = rank(lambda users: scores[users], 40, known, wanted, (10,))
    for user in (0, 1023, 1024, 2499):
        line = scores[user].copy()
        line[known[1, user]] = -np.inf
        assert found.recall[10][user] == float((line > line[wanted[1, user]]).sum() < 10)
