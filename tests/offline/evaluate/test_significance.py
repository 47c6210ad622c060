import numpy as np
import pytest

from serendipity.offline.evaluate.significance import bootstrap_ratio


def test_the_ratio_of_equal_values_is_one_without_doubt() -> None:
    values = np.random.default_rng(0).random(50)
    ratio = bootstrap_ratio(values, values, np.random.default_rng(1))
    assert ratio.value == ratio.low == ratio.high == 1.0


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        denominator = rng.gamma(2.0, 1.0, 80)
        numerator = 1.2 * denominator + rng.normal(0, 0.5, 80)
        ratio = bootstrap_ratio(numerator, denominator, rng, samples=300)
        inside += ratio.low <= 1.2 <= ratio.high
    assert 0.88 <= inside / 200 <= 0.99


def test_users_are_resampled_in_pairs() -> None:
    # Values differ widely between users, their quotients hardly: pairing keeps the interval narrow.
    denominator = np.geomspace(0.01, 100, 60)
    ratio = bootstrap_ratio(1.1 * denominator, denominator, np.random.default_rng(3))
    assert ratio.high - ratio.low < 1e-9


def test_unequal_or_no_users_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2 and 3 users"):
        bootstrap_ratio(np.ones(2), np.ones(3), np.random.default_rng(0))
    for denominator in (np.ones(0), np.zeros(3)):
        with pytest.raises(ValueError, match="expected the same, and not all zero"):
            bootstrap_ratio(denominator + 1, denominator, np.random.default_rng(0))


def test_resamples_without_anything_to_divide_by_leave_the_interval_open() -> None:
    ratio = bootstrap_ratio(np.ones(3), np.array([0.0, 0.0, 1.0]), np.random.default_rng(0))
    assert (ratio.value, ratio.high) == (3.0, np.inf)
    assert 0 < ratio.low < 3.0
