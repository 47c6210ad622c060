"""Which trade-off between quality and novelty a method is reported with: one rule, on the validation episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUALITY_KEPT = 0.99
"""Share of a C-H@K that a trade-off must keep: a loss of 1 %, half a standard error on MovieLens-1M, is allowed for
novelty."""


@dataclass(frozen=True)
class ValidationPoint:
    """One setting on the validation episodes: quality is C-H@K, novelty NCP@K, means over users and seeds."""

    quality: float
    novelty: float


def choose(points: Sequence[ValidationPoint], exploitation: float | None) -> int:
    """Choose the setting with the largest NCP@K of those with C-H@K ≥ 0.99 · min(exploitation, best of these points).

    A method that reaches the best exploitation baseline spends what it has above it on novelty; one that does not
    keeps the best C-H@K it has. exploitation: C-H@K of the best exploitation baseline on the same episodes; None asks
    for the best C-H@K, as exploitation methods are chosen. Returns an index; equal ones: the first. Raises ValueError
    without points.
    """
    if not points:
        raise ValueError("choose: found no settings, expected at least one")
    best = max(point.quality for point in points)
    if exploitation is None:
        return next(i for i, point in enumerate(points) if point.quality == best)
    kept = [i for i, point in enumerate(points) if point.quality >= QUALITY_KEPT * min(exploitation, best)]
    return max(kept, key=lambda i: (points[i].novelty, -i))


def reaches(point: ValidationPoint, exploitation: float | None) -> bool:
    """Tell whether a trade-off keeps 0.99 of the best exploitation baseline's C-H@K, where there is one."""
    return exploitation is None or point.quality >= QUALITY_KEPT * exploitation
