"""Whether two runs of the same seeds differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Means over seeds of `one` and `other`, and of one − other with Student's interval at LEVEL; NaN with one seed."""

    one: float
    other: float
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, one: NDArray[np.float64], other: NDArray[np.float64]) -> PairedDifference:
        """Compare values of the same seeds in the same order, [seeds] each. Raises ValueError without seeds."""
        if one.shape != other.shape or not len(one):
            raise ValueError(f"paired: found {one.shape} and {other.shape}, expected the same seeds, at least one")
        gaps = one - other
        half = float("nan")
        if len(gaps) > 1:
            half = float(stats.t.ppf((1 + LEVEL) / 2, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
        value = float(gaps.mean())
        return cls(float(one.mean()), float(other.mean()), value, value - half, value + half)

    def __str__(self) -> str:
        """Write the difference with its interval, where there is one."""
        interval = "" if np.isnan(self.low) else f" [{self.low:+.4f}, {self.high:+.4f}]"
        return f"{self.value:+.4f}{interval}"
