import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serendipity.offline.distillation.rank_weights import rank_weights


@given(hnp.arrays(np.int64, (7, 5), elements=st.integers(0, 6)), hnp.arrays(np.bool_, (7, 7)))
def test_rank_weights_never_rise_and_are_shares(found: np.ndarray, entered: np.ndarray) -> None:
    weights = rank_weights(found, entered)
    assert len(weights) == 5
    assert all(0 < weight <= 1 for weight in weights)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(weights))
