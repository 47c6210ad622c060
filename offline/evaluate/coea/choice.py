"""Which trade-off between quality and novelty a method is reported with: one rule, on the validation episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUALITY_KEPT = 0.99
"""Share of the best exploitation baseline's C-H@K that a trade-off must keep: a loss of 1 % is allowed for novelty."""


@dataclass(frozen=True)
class ValidationPoint:
    """One setting on the validation episodes: quality is C-H@K, novelty NCP@K, means over users and seeds."""

    quality: float
    novelty: float


def choose(points: Sequence[ValidationPoint], exploitation: float | None) -> int:
    """Choose the setting with the largest NCP@K of those with C-H@K ≥ 0.99 · exploitation; else that of the best C-H@K.

    exploitation: C-H@K of the best exploitation baseline on the same episodes; None asks for the best C-H@K, as
    exploitation methods are chosen. Returns an index; equal ones: the first. Raises ValueError without points.
    """
    if not points:
        raise ValueError("choose: found no settings, expected at least one")
    if exploitation is not None:
        kept = [i for i, point in enumerate(points) if point.quality >= QUALITY_KEPT * exploitation]
        if kept:
            return max(kept, key=lambda i: (points[i].novelty, -i))
    return max(range(len(points)), key=lambda i: (points[i].quality, -i))
