"""Novelty at equal quality: what a row's curve is worth where its C-H@K is a baseline's.

C-H@1 alone can be had with any novelty: keep a good first place and let everything new follow it. So every row with the
trigger is followed along its bonus, and its NCP is read off where its C-H@K is what GRU4Rec's is, for several K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.coea.comparison import Point

SHARES = (1.0, 0.98, 0.95)
"""Of the baseline's C-H@K, at which novelty is read off."""


@dataclass(frozen=True)
class OverSeeds:
    """A figure's mean over seeds with Student's 95 % interval; the interval is empty of one seed."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> OverSeeds:
        """Estimate from one value a seed: [seeds]."""
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else 0.0
        return cls(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def novelty_at(
    curve: Sequence[Point], quality: str, novelty: str, wanted: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Read a curve's novelty off where its quality is what is wanted, by seed: [seeds].

    wanted: [seeds]. Between two bonuses both are interpolated; of several such places that with the most novelty
    counts. None where some seed's curve is below what is wanted throughout.
    """
    qualities = np.stack([point.by_seed[quality] for point in curve])
    novelties = np.stack([point.by_seed[novelty] for point in curve])
    found = [_read_off(*seed) for seed in zip(qualities.T, novelties.T, wanted, strict=True)]
    return None if np.isnan(found).any() else np.array(found)


def _read_off(qualities: NDArray[np.float64], novelties: NDArray[np.float64], wanted: float) -> float:
    kept = novelties[qualities >= wanted].tolist()
    for at in range(len(qualities) - 1):
        (q, after), (n, later) = qualities[at : at + 2], novelties[at : at + 2]
        if (q >= wanted) != (after >= wanted):
            kept.append(n + (later - n) * (wanted - q) / (after - q))
    return max(kept, default=float("nan"))
