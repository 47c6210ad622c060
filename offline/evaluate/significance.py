"""How sure a difference is: paired bootstrap over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means with its percentile bootstrap interval; level: e.g. 0.95."""

    value: float
    low: float
    high: float
    level: float


def bootstrap_ratio(
    numerator: NDArray[np.float64],
    denominator: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    samples: int = 2000,
    level: float = 0.95,
) -> Ratio:
    """Estimate mean(numerator) / mean(denominator) over the same users, resampled together.

    numerator, denominator: [n], one value per user in the same order. Users, not events, are resampled, since a
    user's events are not independent. Raises ValueError when the lengths differ or the
    denominator is zero for everybody.
    """
    if len(numerator) != len(denominator) or not np.any(denominator):
        raise ValueError(
            f"bootstrap_ratio: found {len(numerator)} and {len(denominator)} users, expected the same, and not all zero"
        )
    n = len(numerator)
    weights = rng.multinomial(n, np.full(n, 1.0 / n), size=samples).astype(np.float64)
    sums, bases = weights @ numerator, weights @ denominator
    # A resample without anything to divide by bounds nothing from above.
    ratios = np.divide(sums, bases, out=np.full(samples, np.inf), where=bases > 0)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail], method="higher")
    return Ratio(float(numerator.mean() / denominator.mean()), float(low), float(high), level)


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its percentile bootstrap interval; level: e.g. 0.95."""

    value: float
    low: float
    high: float
    level: float


def bootstrap_difference(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    samples: int = 2000,
    level: float = 0.95,
) -> Difference:
    """Estimate mean(one) − mean(other) over the same users, resampled together.

    one, other: [n], one value per user in the same order. Raises ValueError when the lengths differ or there are no
    users.
    """
    if len(one) != len(other) or not len(one):
        raise ValueError(
            f"bootstrap_difference: found {len(one)} and {len(other)} users, expected the same and at least one"
        )
    n = len(one)
    gaps = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    means = rng.multinomial(n, np.full(n, 1.0 / n), size=samples) @ gaps / n
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Difference(float(gaps.mean()), float(low), float(high), level)
