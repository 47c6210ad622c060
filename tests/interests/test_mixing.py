import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.mixing import mixed

some = st.lists(st.tuples(st.floats(1e-6, 0.99), st.floats(-100, 0)), min_size=1, max_size=20)


def test_a_standard_deviation_moves_the_log_odds_by_the_weight() -> None:
    probabilities, likelihoods = np.array([0.2, 0.2]), np.array([-1.0, -3.0])
    found = mixed(probabilities, likelihoods, 0.5)
    log_odds = np.log(found / (1 - found)) - np.log(0.2 / 0.8)
    assert log_odds.tolist() == pytest.approx([0.5, -0.5])


@given(some, st.floats(-50, 50), st.floats(0.01, 50))
def test_scale_and_offset_of_the_likelihoods_do_not_matter(
    pairs: list[tuple[float, float]], offset: float, scale: float
) -> None:
    probabilities, likelihoods = np.array(pairs).T
    if likelihoods.std() > 1e-3:
        moved = mixed(probabilities, offset + scale * likelihoods, 0.8)
        assert np.allclose(mixed(probabilities, likelihoods, 0.8), moved, rtol=1e-3)


@given(some)
def test_without_weight_or_without_differences_the_reasoner_alone_decides(pairs: list[tuple[float, float]]) -> None:
    probabilities, likelihoods = np.array(pairs).T
    assert np.allclose(mixed(probabilities, likelihoods, 0.0), probabilities)
    assert np.allclose(mixed(probabilities, np.full(len(pairs), -7.0), 3.0), probabilities)


@given(some, st.floats(0, 4))
def test_what_comes_out_is_a_probability(pairs: list[tuple[float, float]], weight: float) -> None:
    probabilities, likelihoods = np.array(pairs).T
    found = mixed(probabilities, likelihoods, weight)
    assert ((found > 0) & (found < 1)).all()
