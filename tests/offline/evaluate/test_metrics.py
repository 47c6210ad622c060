import numpy as np
import pytest

from serendipity.offline.evaluate.held_out import Targets
from serendipity.offline.evaluate.metrics import coverage_at, hits, recall_at

TARGETS = Targets.from_pairs(np.array([4, 4, 4, 9]), np.array([8, 1, 5, 1]))
TOP = np.array([[5, 0, 8, 2], [3, 2, -1, -1]])


def test_hits_belong_to_their_own_user() -> None:
    assert hits(TOP, TARGETS).tolist() == [[True, False, True, False], [False] * 4]


def test_recall_divides_by_all_targets() -> None:
    hit = hits(TOP, TARGETS)
    assert recall_at(hit, TARGETS, 1).tolist() == [1 / 3, 0]
    assert recall_at(hit, TARGETS, 4).tolist() == [2 / 3, 0]


def test_coverage_counts_items_once_and_no_gaps() -> None:
    assert coverage_at(TOP, 10, 2) == 4 / 10
    assert coverage_at(np.array([[1, 1], [-1, 1]]), 4, 2) == 1 / 4


def test_lists_must_match_the_users() -> None:
    with pytest.raises(ValueError, match="found 1 lists, expected one for each of 2 users"):
        hits(TOP[:1], TARGETS)
