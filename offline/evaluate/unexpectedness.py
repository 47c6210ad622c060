"""How unexpected a category is to a user, and how much more a relevant item pleases where it is.

Both follow from the clicks before the cut alone, never from a vector that any method ranks by.

surprisal     −log₂ P(c | u), P(c | u) = (n_uc + μ·q_u(c)) / (n_u + μ): the user's own clicks n_uc in each category,
              smoothed by μ clicks' worth of q_u(c) = Σ_s (n_us / n_u)·P(c | s), what users click who click in s
              (Dirichlet smoothing: Zhai and Lafferty, SIGIR 2001)
felt weight   11,383 people rated a recommendation 1 to 5 (Chen et al., "How Serendipity Improves User Satisfaction
              with Recommendations?", WWW 2019; Wang et al. 2020). Of those of relevance 5 the mean felt serendipity
              rose with unexpectedness 1 … 5 as in FELT. Unexpectedness here is 1 + 4·(share of the targets that
              surprise less)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY

FELT = (2.90, 3.36, 3.54, 4.17, 4.64)
"""Mean felt serendipity at relevance 5 by unexpectedness 1 … 5."""

SMOOTHING_CLICKS = 200.0
"""μ: as many clicks as novelty is judged by."""

_PRIOR_CLICKS = 5.0
"""Clicks' worth of the overall shares mixed into every P(c | s)."""


def surprisals(own_clicks: NDArray[np.float32], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the surprisal in bits of every category for some users, [len(users), C + 1]; category 0 is NaN.

    own_clicks: [U, C + 1] clicks of all users before the cut, by category.
    """
    clicks = own_clicks.astype(np.float64)
    clicks[:, NO_CATEGORY] = 0
    totals = clicks.sum(axis=1, keepdims=True)
    shares = np.divide(clicks, totals, out=np.zeros_like(clicks), where=totals > 0)
    overall = (clicks.sum(axis=0) + 1.0) / (clicks.sum() + clicks.shape[1])
    # How those who click in s spread their clicks, each user counting by the share of s in theirs.
    together = shares.T @ shares
    given = (together + _PRIOR_CLICKS * overall) / (together.sum(axis=1, keepdims=True) + _PRIOR_CLICKS)
    prior = np.where(totals[users] > 0, shares[users] @ given, overall)
    predicted = (clicks[users] + SMOOTHING_CLICKS * prior) / (totals[users] + SMOOTHING_CLICKS)
    found: NDArray[np.float64] = -np.log2(predicted)
    found[:, NO_CATEGORY] = np.nan
    return found


def felt_weights(surprisal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh targets by how serendipity is felt at their surprisal, scaled to mean 1. surprisal: [t]; returns [t]."""
    if not len(surprisal):
        return surprisal
    _, inverse, counts = np.unique(surprisal, return_inverse=True, return_counts=True)
    # Equal surprisals share the middle of their places.
    below = (np.cumsum(counts) - 0.5 * (counts + 1)) / max(len(surprisal) - 1, 1)
    felt = np.interp(1 + 4 * below[inverse], np.arange(1, 6), FELT)
    weights: NDArray[np.float64] = felt / felt.mean()
    return weights
