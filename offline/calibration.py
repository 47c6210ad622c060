"""Fits what turns a source's raw score into P(interaction within the horizon | recalled).

A curve per source and path (tower, or stored vectors when the tower is away), fitted on a replay of a period whose
interactions the scoring model has not seen:

1. Rates are Beta-smoothed: a source's rate is shrunk towards that of all candidates of its path by `prior_strength`
   pseudo-candidates, so that a source nobody clicked yet is rare, not impossible.
2. With at least `min_positives` positives a source gets a curve of its own: isotonic regression over bins of at least
   `bin_size` candidates, centred (Oron and Flournoy 2017, arXiv 1701.05964): a knot at the mean score of each level
   instead of a step, so that calibration keeps a source's order instead of making ties.
3. With fewer it gets σ(slope · z + intercept) over its standardised score z: the slope is that of all candidates of
   all sources (1 where those are too few as well), the intercept makes the mean probability the source's smoothed rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from serendipity.layout import hash_of
from serendipity.offline.configuration import Configuration
from serendipity.v1 import channel_pb2, records_pb2

_TIE_BREAK = 1e-3
"""Relative rise of a curve beyond its outermost knots, over one range of scores: enough to keep the order."""


class CalibrationConfig(Configuration):
    """How scores are calibrated."""

    min_positives: Annotated[int, Field(ge=1)] = 100
    """Candidates with an interaction that a source needs for a curve of its own."""
    bin_size: Annotated[int, Field(ge=1)] = 200
    """Candidates that one bin of the isotonic regression holds at least."""
    prior_strength: Annotated[float, Field(gt=0)] = 100.0
    """Pseudo-candidates by which a source's rate is shrunk towards the rate of all sources."""


@dataclass(frozen=True)
class Outcomes:
    """Replayed candidates and what became of them, as columns of n.

    sources: int32 numbers of Source. fallback: bool, found with stored vectors. raw: float32 raw scores. hits: bool,
    the user interacted with the item within the horizon.
    """

    sources: NDArray[np.int32]
    fallback: NDArray[np.bool_]
    raw: NDArray[np.float32]
    hits: NDArray[np.bool_]

    def __post_init__(self) -> None:
        lengths = {len(self.sources), len(self.fallback), len(self.raw), len(self.hits)}
        if len(lengths) > 1:
            raise ValueError(f"Outcomes: found columns of lengths {sorted(lengths)}, expected one length")
        if not np.isfinite(self.raw).all():
            raise ValueError("Outcomes.raw: found scores that are not finite, expected finite ones")

    def __len__(self) -> int:
        return len(self.raw)

    def where(self, chosen: NDArray[np.bool_]) -> Outcomes:
        """Take the candidates that are marked."""
        return Outcomes(self.sources[chosen], self.fallback[chosen], self.raw[chosen], self.hits[chosen])

    @staticmethod
    def concatenate(parts: Iterable[Outcomes]) -> Outcomes:
        """Lay several one after another."""
        columns = list(parts)
        if not columns:
            return Outcomes(
                np.empty(0, np.int32), np.empty(0, np.bool_), np.empty(0, np.float32), np.empty(0, np.bool_)
            )
        return Outcomes(
            np.concatenate([part.sources for part in columns]),
            np.concatenate([part.fallback for part in columns]),
            np.concatenate([part.raw for part in columns]),
            np.concatenate([part.hits for part in columns]),
        )


def fit_calibration(
    outcomes: Outcomes, horizon_days: float, config: CalibrationConfig | None = None
) -> records_pb2.Calibration:
    """Fit a calibrator for every source and path that occurs in `outcomes`.

    horizon_days: days after the replayed moment within which an interaction counted. The id is a hash of the curves
    and the horizon. Raises ValueError without candidates.
    """
    if not len(outcomes):
        raise ValueError("fit_calibration: found no candidates, expected at least one")
    config = config or CalibrationConfig()
    calibration = records_pb2.Calibration(horizon_days=horizon_days)
    for fallback in (False, True):
        path = outcomes.where(outcomes.fallback == fallback)
        if not len(path):
            continue
        slope = _pooled_slope(path, config)
        rate_of_path = (float(path.hits.sum()) + 0.5) / (len(path) + 1.0)
        for source in sorted(set(path.sources.tolist())):
            of_source = path.where(path.sources == source)
            positives = int(of_source.hits.sum())
            rate = _smoothed(positives, len(of_source), rate_of_path, config.prior_strength)
            if positives >= config.min_positives:
                raw, probability = _isotonic(of_source, rate, config.bin_size)
            else:
                raw, probability = _logistic(of_source, rate, slope)
            knots, probabilities = _single_precision(*_extended(raw, probability))
            calibration.calibrators.append(
                records_pb2.Calibrator(
                    source=channel_pb2.Source.Name(source),
                    fallback=fallback,
                    raw=knots.tolist(),
                    probability=probabilities.tolist(),
                    num_candidates=len(of_source),
                    num_positives=positives,
                )
            )
    calibration.id = hash_of([calibration.SerializeToString(deterministic=True)])[:16]
    return calibration


def calibrate(calibrator: records_pb2.Calibrator, raw: NDArray[np.float32]) -> NDArray[np.float64]:
    """Map raw scores, [n], to probabilities, [n]: linear between knots, constant beyond them."""
    return np.interp(np.asarray(raw, np.float64), calibrator.raw, calibrator.probability)


@dataclass(frozen=True)
class ReliabilityBin:
    """Candidates of similar predicted probability: how many, the mean prediction, the share that was right."""

    count: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Reliability:
    """How far predicted probabilities can be believed.

    expected_calibration_error: Σ count/n · |predicted − observed| over equally filled bins (ECE). brier: mean squared
    error; brier_of_base_rate: the same for predicting the base rate always; below it, the scores carry information.
    """

    bins: tuple[ReliabilityBin, ...]
    expected_calibration_error: float
    brier: float
    brier_of_base_rate: float
    base_rate: float
    mean_predicted: float


def reliability(
    probabilities: NDArray[np.float64] | NDArray[np.float32], hits: NDArray[np.bool_], num_bins: int = 10
) -> Reliability:
    """Measure predicted probabilities, [n], against what happened, [n] bool.

    Bins hold equally many candidates, since most probabilities are small. Raises ValueError without candidates.
    """
    predicted = np.asarray(probabilities, np.float64)
    observed = np.asarray(hits, np.float64)
    if not len(predicted) or len(predicted) != len(observed):
        raise ValueError(
            f"reliability: found {len(predicted)} probabilities and {len(observed)} hits, expected as many, above 0"
        )
    order = np.argsort(predicted, kind="stable")
    bins = tuple(
        ReliabilityBin(len(part), float(predicted[part].mean()), float(observed[part].mean()))
        for part in np.array_split(order, min(num_bins, len(order)))
    )
    base_rate = float(observed.mean())
    return Reliability(
        bins=bins,
        expected_calibration_error=sum(b.count * abs(b.predicted - b.observed) for b in bins) / len(predicted),
        brier=float(np.mean((predicted - observed) ** 2)),
        brier_of_base_rate=base_rate * (1.0 - base_rate),
        base_rate=base_rate,
        mean_predicted=float(predicted.mean()),
    )


def _smoothed(positives: float, candidates: float, prior_rate: float, strength: float) -> float:
    """Mean of the Beta posterior: (positives + strength · prior) / (candidates + strength)."""
    return (positives + strength * prior_rate) / (candidates + strength)


def _isotonic(outcomes: Outcomes, rate: float, bin_size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.argsort(outcomes.raw, kind="stable")
    parts = np.array_split(order, max(1, len(order) // bin_size))
    raw = np.array([outcomes.raw[part].mean(dtype=np.float64) for part in parts])
    # One pseudo-candidate at the source's rate keeps the lowest bins above 0.
    rates = np.array([_smoothed(float(outcomes.hits[part].sum()), len(part), rate, 1.0) for part in parts])
    weights = np.array([float(len(part)) for part in parts])
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(raw, rates, sample_weight=weights)
    levels, block = np.unique(fitted, return_inverse=True)
    centres = np.bincount(block, weights * raw) / np.bincount(block, weights)
    return centres, levels


def _logistic(outcomes: Outcomes, rate: float, slope: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centre, scale = _standard(outcomes.raw)
    z = (outcomes.raw - centre) / scale
    low, high = -40.0, 40.0
    while high - low > 1e-9:
        intercept = (low + high) / 2
        if _sigmoid(slope * z + intercept).mean() < rate:
            low = intercept
        else:
            high = intercept
    grid = np.linspace(min(-3.0, float(z.min())), max(3.0, float(z.max())), 65)
    return centre + scale * grid, _sigmoid(slope * grid + (low + high) / 2)


def _pooled_slope(outcomes: Outcomes, config: CalibrationConfig) -> float:
    """Slope of the log odds over each source's standardised score, over all sources together."""
    negatives = len(outcomes) - int(outcomes.hits.sum())
    if int(outcomes.hits.sum()) < config.min_positives or negatives < config.min_positives:
        return 1.0
    z = np.empty(len(outcomes))
    for source in np.unique(outcomes.sources):
        of_source = outcomes.sources == source
        centre, scale = _standard(outcomes.raw[of_source])
        z[of_source] = (outcomes.raw[of_source] - centre) / scale
    fitted = LogisticRegression(C=1.0).fit(z.reshape(-1, 1), outcomes.hits)
    # Never flat and never falling: a calibrator must not turn a source's order round.
    return max(0.1, float(fitted.coef_[0, 0]))


def _standard(raw: NDArray[np.float32]) -> tuple[float, float]:
    return float(raw.mean(dtype=np.float64)), max(float(raw.std(dtype=np.float64)), 1e-6)


def _extended(
    raw: NDArray[np.float64], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Let the curve rise a little beyond its ends: scores above all that were replayed must keep their order too."""
    span = max(float(raw[-1] - raw[0]), abs(float(raw[0])), 1.0)
    first, last = float(probability[0]), float(probability[-1])
    return (
        np.concatenate([[raw[0] - span], raw, [raw[-1] + span]]),
        np.concatenate([[first * (1 - _TIE_BREAK)], probability, [last + (1 - last) * last * _TIE_BREAK]]),
    )


def _single_precision(
    raw: NDArray[np.float64], probability: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Round as the manifest stores it, dropping knots that coincide then."""
    single = raw.astype(np.float32)
    keep = np.concatenate([[True], np.diff(single) > 0])
    return single[keep], np.maximum.accumulate(probability.astype(np.float32))[keep]


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -500, 500)))
