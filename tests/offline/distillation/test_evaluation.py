import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serendipity.offline.distillation.evaluation import average_overlap, future_hits, jaccard
from serendipity.offline.distillation.rank_weights import rank_weights

ENTERED = np.array([[False, True, True, False], [False, False, False, True]])


def test_future_hits_count_places_and_take_missing_interests_for_misses() -> None:
    found = np.array([[1, 3, 2], [3, 0, 0]])
    assert future_hits(found, ENTERED, 2).tolist() == [0.5, 0.5]
    assert future_hits(found, ENTERED, 3) == pytest.approx([2 / 3, 1 / 3])


def test_overlap_rewards_the_order_and_jaccard_does_not() -> None:
    assert jaccard([1, 2], [2, 1]) == 1.0
    assert average_overlap([1, 2], [2, 1]) == 0.5
    assert average_overlap([], []) == jaccard([], []) == 1.0


@given(hnp.arrays(np.int64, (7, 5), elements=st.integers(0, 6)), hnp.arrays(np.bool_, (7, 7)))
def test_rank_weights_never_rise_and_are_shares(found: np.ndarray, entered: np.ndarray) -> None:
    weights = rank_weights(found, entered)
    assert len(weights) == 5
    assert all(0 < weight <= 1 for weight in weights)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(weights))
