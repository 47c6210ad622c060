import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.graph.validation import hold_out


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), unique=True, min_size=1), st.integers(0, 5))
def test_holding_out_parts_the_clicks_and_leaves_every_user_some(pairs: list[tuple[int, int]], seed: int) -> None:
    clicks = np.array(pairs, np.int64).T
    kept, held = hold_out(clicks, 0.25, np.random.default_rng(seed))
    assert sorted([*kept.T.tolist(), *held.T.tolist()]) == sorted(map(list, pairs))
    for user in set(clicks[0].tolist()):
        number, away = int((clicks[0] == user).sum()), int((held[0] == user).sum())
        assert away == (max(1, round(0.25 * number)) if number > 1 else 0)
        assert away < number
