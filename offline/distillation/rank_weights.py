"""How much the interest a model names first, second … is worth: the share that users then entered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

_PRIOR_USERS = 8.0
"""Users' worth of the overall share mixed into every rank's: a few users say little of a rank alone."""


def rank_weights(found: NDArray[np.int64], entered: NDArray[np.bool_]) -> list[float]:
    """Share of users who entered what was named at each rank, never rising from one rank to the next.

    found: [users, K] category numbers, best first, 0 = none; entered: [users, categories + 1].
    """
    named = found > 0
    hits = np.take_along_axis(entered, found, axis=1) & named
    overall = (hits.sum() + 0.5) / (named.sum() + 1.0)
    shares = (hits.sum(0) + _PRIOR_USERS * overall) / (named.sum(0) + _PRIOR_USERS)
    ranks = np.arange(found.shape[1])
    falling = IsotonicRegression(increasing=False).fit(ranks, shares, named.sum(0) + _PRIOR_USERS).predict(ranks)
    return [float(weight) for weight in falling]
