"""Real-time calibration of latent interests: what a user did with an interest's items moves its weight.

Dewu names it as future work ("dynamically calibrating generated interests with real-time feedback to avoid
over-divergence"). A stored weight w is taken as a rate that as much as `strength` exposures speak for: the prior is
Beta(s·w, s·(1 − w)). With C clicks and X exposures of items the interest is grounded in, both faded by age
(2^(−age / half-life)), the posterior mean is

    w' = (s·w + C) / (s + max(X, C))          where clicks that no exposure was acknowledged for are their own trials

and is kept within a factor of w, so that no burst of events silences an interest or drowns the others. Without
events, and as they age, w' is w. Saving an item is as good as a click on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.snapshot.row_ranges import OwnedRanges

HALF_LIFE = 7 * 86_400.0
"""Age, seconds, at which a click or an exposure moves a weight half as much."""

_STRENGTH = 20.0
"""s: exposures that a stored weight counts for against those acknowledged since."""

_MAX_FACTOR = 4.0
"""A weight is raised to so many times its stored value at most, and lowered to so small a part of it."""


@dataclass(frozen=True)
class ItemEvents:
    """Events of one kind on items of the catalogue, in any order. rows: [n] int64; ages: [n] float64 seconds, ≥ 0."""

    rows: NDArray[np.int64]
    ages: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, items: NDArray[np.int64], times: NDArray[np.int64], now: int) -> ItemEvents:
        """Take events given as items (row + 1; 0, outside the catalogue, is left out) and times (Unix seconds)."""
        known = items > 0
        return cls(items[known] - 1, np.maximum(now - times[known], 0).astype(np.float64))

    @classmethod
    def union(cls, *parts: ItemEvents) -> ItemEvents:
        """Events of several places; what several report, the same item at the same second, counts once."""
        parts = tuple(part for part in parts if len(part))
        if len(parts) < 2:
            return parts[0] if parts else cls.none()
        rows, ages = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "ages"))
        # Rows and ages of whole seconds fit 32 bits each.
        _, first = np.unique((rows << 32) + ages.astype(np.int64), return_index=True)
        return cls(rows[first], ages[first])

    @classmethod
    def none(cls) -> ItemEvents:
        """No events."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float64))


def faded_counts(events: ItemEvents, groundings: OwnedRanges, half_life: float = HALF_LIFE) -> NDArray[np.float64]:
    """Count the events on each interest's rows, each faded by its age in half-lives (seconds). Returns [k] float64."""
    # Whatever order events come in, they are added up in one: by row, then age.
    order = np.lexsort((events.ages, events.rows))
    rows = events.rows[order]
    totals = np.zeros(len(rows) + 1)
    np.cumsum(np.exp2(events.ages[order] / -half_life), out=totals[1:])
    within = totals[rows.searchsorted(groundings.ends)] - totals[rows.searchsorted(groundings.starts)]
    return np.bincount(groundings.owners, within, groundings.num_owners).astype(np.float64, copy=False)


def weight_factors(
    weights: NDArray[np.float32], clicks: NDArray[np.float64], exposures: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Tell by what each interest's weight is multiplied, [k] float32, 1 without events.

    weights: [k], 0 to 1; clicks, exposures: [k] faded counts. Rises with clicks, falls with exposures; the weight
    times its factor stays within 0 … 1. A weight of 0 stays 0.
    """
    stored = weights.astype(np.float64)
    posterior = (_STRENGTH * stored + clicks) / (_STRENGTH + np.maximum(exposures, clicks))
    ratio = np.divide(posterior, stored, out=np.ones_like(stored), where=stored > 0)
    return np.clip(ratio, 1 / _MAX_FACTOR, _MAX_FACTOR).astype(np.float32)
