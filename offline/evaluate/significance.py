"""How sure a difference is: paired bootstrap over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap_ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], rng: np.random.Generator, *, samples: int = 2_000
) -> Estimate:
    """Estimate mean(numerator) / mean(denominator) over the same users, resampled together.

    numerator, denominator: [n], one value per user in the same order. Users, not events, are resampled, since a
    user's events are not independent. Raises ValueError when the lengths differ or the
    denominator is zero for everybody.
    """
    if len(numerator) != len(denominator) or not np.any(denominator):
        raise ValueError(
            f"bootstrap_ratio: found {len(numerator)} and {len(denominator)} users, expected the same, and not all zero"
        )
    weights = _resampled(len(numerator), rng, samples)
    sums, bases = weights @ numerator, weights @ denominator
    # A resample without anything to divide by bounds nothing from above.
    ratios = np.divide(sums, bases, out=np.full(samples, np.inf), where=bases > 0)
    low, high = np.quantile(ratios, _TAILS, method="higher")
    return Estimate(float(numerator.mean() / denominator.mean()), float(low), float(high))


def bootstrap_difference(one: NDArray[np.float64], other: NDArray[np.float64], rng: np.random.Generator) -> Estimate:
    """Estimate mean(one) − mean(other) over the same users, resampled together.

    one, other: [n], one value per user in the same order. Raises ValueError when the lengths differ or there are no
    users.
    """
    if len(one) != len(other) or not len(one):
        raise ValueError(
            f"bootstrap_difference: found {len(one)} and {len(other)} users, expected the same and at least one"
        )
    gaps = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    low, high = np.quantile(_resampled(len(gaps), rng, 2_000) @ gaps / len(gaps), _TAILS)
    return Estimate(float(gaps.mean()), float(low), float(high))


def _resampled(n: int, rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Draw how often each of n users is in each resample, [samples, n]."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=samples).astype(np.float64)
