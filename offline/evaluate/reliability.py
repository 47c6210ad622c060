"""How far predicted probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
