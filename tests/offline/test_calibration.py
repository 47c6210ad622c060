"""Calibration of scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serendipity.offline.calibration import CalibrationConfig, Outcomes, calibrate, fit_calibration, reliability
from serendipity.offline.snapshot.contents import check_calibration
from serendipity.v1 import channel_pb2, records_pb2

INTEREST = channel_pb2.SOURCE_INTEREST
COLLABORATIVE = channel_pb2.SOURCE_COLLABORATIVE


def _outcomes(
    raw: NDArray[np.float32], hits: NDArray[np.bool_], source: int = INTEREST, fallback: bool = False
) -> Outcomes:
    return Outcomes(np.full(len(raw), source, np.int32), np.full(len(raw), fallback), raw, hits)


def _planted(n: int, seed: int, shift: float = 3.0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Scores and the true probabilities behind them: 0.5 · σ(2 · raw − shift)."""
    raw = np.random.default_rng(seed).normal(size=n).astype(np.float32)
    return raw, 0.5 / (1 + np.exp(-(2 * raw.astype(np.float64) - shift)))


def _draw(probability: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    drawn: NDArray[np.bool_] = np.random.default_rng(seed).random(len(probability)) < probability
    return drawn


def _only(calibration: records_pb2.Calibration) -> records_pb2.Calibrator:
    (calibrator,) = calibration.calibrators
    return calibrator


def test_a_planted_curve_is_recovered() -> None:
    raw, truth = _planted(60_000, seed=1)
    calibrator = _only(fit_calibration(_outcomes(raw, _draw(truth, 2)), horizon_days=7))
    fresh, fresh_truth = _planted(20_000, seed=3)
    predicted = calibrate(calibrator, fresh)
    assert np.abs(predicted - fresh_truth).mean() < 0.01
    measured = reliability(predicted, _draw(fresh_truth, 4))
    assert measured.expected_calibration_error < 0.01
    assert measured.brier < measured.brier_of_base_rate


@settings(max_examples=60, deadline=None)
@given(
    raw=hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-1e4, 1e4, width=32)),
    data=st.data(),
    min_positives=st.integers(1, 50),
)
def test_every_curve_is_monotone_and_a_probability(
    raw: NDArray[np.float32], data: st.DataObject, min_positives: int
) -> None:
    n = len(raw)
    outcomes = Outcomes(
        data.draw(hnp.arrays(np.int32, n, elements=st.sampled_from([INTEREST, COLLABORATIVE]))),
        data.draw(hnp.arrays(np.bool_, n)),
        raw,
        data.draw(hnp.arrays(np.bool_, n)),
    )
    calibration = fit_calibration(
        outcomes, horizon_days=7, config=CalibrationConfig(min_positives=min_positives, bin_size=20)
    )
    check_calibration(calibration)
    occurring = set(zip(outcomes.sources.tolist(), outcomes.fallback.tolist(), strict=True))
    assert {(c.source, c.fallback) for c in calibration.calibrators} == occurring
    for calibrator in calibration.calibrators:
        scores = np.sort(np.concatenate([raw, np.float32([-1e9, 0, 1e9])]))
        probabilities = calibrate(calibrator, scores)
        assert (np.diff(probabilities) >= 0).all()
        assert 0 < probabilities[0] <= probabilities[-1] < 1


@pytest.mark.parametrize("positives", [0, 20, 2000])
def test_calibration_keeps_the_order_within_a_source(positives: int) -> None:
    raw = np.linspace(-2, 2, 20_000, dtype=np.float32)
    hits = np.zeros(len(raw), np.bool_)
    hits[np.random.default_rng(0).choice(len(raw), positives, replace=False)] = True
    calibrator = _only(fit_calibration(_outcomes(raw, hits), horizon_days=7))
    beyond = np.linspace(-3, 3, 2_000, dtype=np.float32)
    assert (np.diff(calibrate(calibrator, beyond)) > 0).all()


def test_a_source_with_few_positives_has_its_smoothed_rate_on_average() -> None:
    raw, truth = _planted(30_000, seed=5)
    rich = _outcomes(raw, _draw(truth, 6))
    poor_raw = (100 + 10 * np.random.default_rng(7).normal(size=400)).astype(np.float32)
    poor_hits = np.zeros(400, np.bool_)
    poor_hits[np.argmax(poor_raw)] = True
    calibration = fit_calibration(
        Outcomes.concatenate([rich, _outcomes(poor_raw, poor_hits, COLLABORATIVE)]), horizon_days=7
    )
    by_source = {c.source: c for c in calibration.calibrators}
    rate_of_path = (rich.hits.sum() + 1 + 0.5) / 30_401
    expected = (1 + 100 * rate_of_path) / 500
    assert calibrate(by_source[COLLABORATIVE], poor_raw).mean() == pytest.approx(expected, rel=0.02)
    assert (by_source[COLLABORATIVE].num_candidates, by_source[COLLABORATIVE].num_positives) == (400, 1)


def test_a_path_without_any_positive_is_rare_not_impossible() -> None:
    raw = np.random.default_rng(0).normal(size=5_000).astype(np.float32)
    calibrator = _only(fit_calibration(_outcomes(raw, np.zeros(5_000, np.bool_)), horizon_days=7))
    probabilities = calibrate(calibrator, raw)
    assert probabilities.min() > 0
    assert probabilities.mean() < 1e-3


def test_stored_vectors_are_calibrated_apart() -> None:
    raw, truth = _planted(30_000, seed=8)
    tower = _outcomes(raw, _draw(truth, 9))
    stored = _outcomes(raw, _draw(truth / 4, 10), fallback=True)
    calibration = fit_calibration(Outcomes.concatenate([tower, stored]), horizon_days=7)
    by_path = {c.fallback: c for c in calibration.calibrators}
    assert calibrate(by_path[True], raw).mean() == pytest.approx(calibrate(by_path[False], raw).mean() / 4, rel=0.1)


def test_the_id_follows_the_contents() -> None:
    raw, truth = _planted(5_000, seed=11)
    hits = _draw(truth, 12)
    first = fit_calibration(_outcomes(raw, hits), horizon_days=7)
    assert fit_calibration(_outcomes(raw, hits), horizon_days=7).id == first.id
    assert fit_calibration(_outcomes(raw, hits), horizon_days=14).id != first.id
    assert fit_calibration(_outcomes(raw, ~hits), horizon_days=7).id != first.id
    assert len(first.id) == 16


def test_reliability_of_known_probabilities() -> None:
    predicted = np.array([0.1] * 10 + [0.9] * 10)
    hits = np.array([True] + [False] * 9 + [True] * 7 + [False] * 3)
    measured = reliability(predicted, hits, num_bins=2)
    assert [b.count for b in measured.bins] == [10, 10]
    assert [b.predicted for b in measured.bins] == pytest.approx([0.1, 0.9])
    assert [b.observed for b in measured.bins] == pytest.approx([0.1, 0.7])
    assert measured.expected_calibration_error == pytest.approx(0.1)
    assert measured.base_rate == pytest.approx(0.4)
    assert measured.brier_of_base_rate == pytest.approx(0.24)
    assert measured.brier == pytest.approx((0.81 + 9 * 0.01 + 7 * 0.01 + 3 * 0.81) / 20)


def test_nothing_to_fit_on_is_said() -> None:
    with pytest.raises(ValueError, match="found no candidates"):
        fit_calibration(Outcomes.concatenate([]), horizon_days=7)
    with pytest.raises(ValueError, match="scores that are not finite"):
        _outcomes(np.array([np.nan], np.float32), np.array([True]))
