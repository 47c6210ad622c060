"""The paired bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.evaluate.significance import paired_bootstrap_ratio


def test_twice_as_good_for_everyone_is_exactly_two() -> None:
    baseline = np.random.default_rng(0).random(200)
    interval = paired_bootstrap_ratio(2 * baseline, baseline, seed=1, resamples=500)
    assert (interval.ratio, interval.lower, interval.upper) == pytest.approx((2.0, 2.0, 2.0))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(100):
        baseline = rng.gamma(2.0, 0.5, 150)
        method = 1.3 * baseline + rng.normal(0, 0.4, 150)
        interval = paired_bootstrap_ratio(method, baseline, seed=trial, resamples=400, confidence=0.9)
        covered += interval.lower <= 1.3 <= interval.upper
    assert 80 <= covered <= 98


def test_users_without_a_value_are_left_out_of_both() -> None:
    method = np.array([1.0, np.nan, 3.0, 5.0])
    baseline = np.array([1.0, 100.0, np.nan, 2.0])
    interval = paired_bootstrap_ratio(method, baseline, seed=0, resamples=50)
    assert (interval.ratio, interval.users) == (2.0, 2)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    method, baseline = rng.random(50), rng.random(50)
    first = paired_bootstrap_ratio(method, baseline, seed=5, resamples=300)
    assert paired_bootstrap_ratio(method, baseline, seed=5, resamples=300) == first
    assert paired_bootstrap_ratio(method, baseline, seed=6, resamples=300) != first


def test_a_baseline_of_zero_is_infinitely_beaten() -> None:
    interval = paired_bootstrap_ratio(np.ones(10), np.zeros(10), seed=0, resamples=20)
    assert interval.lower == interval.ratio == np.inf


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found shapes \(3,\) and \(4,\)"):
        paired_bootstrap_ratio(np.ones(3), np.ones(4), seed=0)
    with pytest.raises(ValueError, match="no user with a value in both"):
        paired_bootstrap_ratio(np.array([np.nan]), np.array([1.0]), seed=0)
