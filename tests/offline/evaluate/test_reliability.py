"""How far probabilities can be believed."""

from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.evaluate.reliability import reliability


def test_reliability_of_known_probabilities() -> None:
    predicted = np.array([0.1] * 10 + [0.9] * 10)
    hits = np.array([True] + [False] * 9 + [True] * 7 + [False] * 3)
    measured = reliability(predicted, hits, num_bins=2)
    assert [b.count for b in measured.bins] == [10, 10]
    assert [b.predicted for b in measured.bins] == pytest.approx([0.1, 0.9])
    assert [b.observed for b in measured.bins] == pytest.approx([0.1, 0.7])
    assert measured.expected_calibration_error == pytest.approx(0.1)
    assert measured.base_rate == pytest.approx(0.4)
    assert measured.mean_predicted == pytest.approx(0.5)
    assert measured.brier_of_base_rate == pytest.approx(0.24)
    assert measured.brier == pytest.approx((0.81 + 9 * 0.01 + 7 * 0.01 + 3 * 0.81) / 20)


def test_true_probabilities_can_be_believed_and_doubled_ones_cannot() -> None:
    rng = np.random.default_rng(1)
    truth = 0.5 / (1 + np.exp(3 - 2 * rng.normal(size=60_000)))
    hits = rng.random(len(truth)) < truth
    true, doubled = reliability(truth, hits), reliability(2 * truth, hits)
    assert true.expected_calibration_error < 0.01
    assert true.brier < true.brier_of_base_rate
    assert doubled.expected_calibration_error == pytest.approx(truth.mean(), abs=0.01)


def test_bins_are_filled_equally_and_no_more_than_there_are_candidates() -> None:
    measured = reliability(np.array([0.3, 0.1, 0.2], np.float32), np.array([True, False, False]))
    assert [(b.count, round(b.predicted, 6), b.observed) for b in measured.bins] == [
        (1, 0.1, 0),
        (1, 0.2, 0),
        (1, 0.3, 1),
    ]


@pytest.mark.parametrize(("probabilities", "hits"), [([], []), ([0.1], [True, False])])
def test_columns_that_say_nothing_are_refused(probabilities: list[float], hits: list[bool]) -> None:
    with pytest.raises(ValueError, match=rf"found {len(probabilities)} probabilities and {len(hits)} hits"):
        reliability(np.array(probabilities), np.array(hits, np.bool_))
