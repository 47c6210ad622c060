"""Exposures of each user in the order of a score: the first of them, and pairs in the right order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.exposures.log import ExposureLog
from benchmarks.exposures.metrics import Sums

_SEED = 20_220_425
"""Of the order of equal scores, the same for every ranking."""


def first_of_each(log: ExposureLog, scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Mark the ⌈share · m⌉ highest of each user's m exposures; of a user with only one, none: [n] bool.

    scores: [n], −∞ last; equal ones stand in one random order.
    """
    order = np.lexsort((_priority(len(log)), -scores, log.users))
    owners = log.users[order]
    counts = np.bincount(owners) if len(owners) else np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])[owners]
    # Rounded first: a tenth of ten is one, whatever floats make of it.
    wanted = np.ceil(np.round(share * counts, 9))[owners]
    chosen = np.zeros(len(log), np.bool_)
    chosen[order] = (np.arange(len(order)) - starts < wanted) & (counts[owners] > 1)
    return chosen


def first_of_all(log: ExposureLog, scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Mark the share of all exposures that scores are highest of, whoever's: [n] bool."""
    chosen = np.zeros(len(log), np.bool_)
    chosen[np.lexsort((_priority(len(log)), -scores))[: int(np.ceil(round(share * len(log), 9)))]] = True
    return chosen


def ordered_pairs(log: ExposureLog, scores: NDArray[np.float64], num_users: int) -> Sums:
    """Count, by user number, pairs of a clicked exposure and one that was not, and those of them in which the clicked
    one scores higher; of equal scores half. The ratio is the AUC within users, weighed by their pairs."""
    right, pairs = np.zeros(num_users), np.zeros(num_users)
    bounds = np.flatnonzero(np.diff(log.users, prepend=-1, append=-1))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        clicked = log.clicked[start:end]
        if clicked.any() and not clicked.all():
            theirs = scores[start:end]
            above, below = theirs[clicked][:, None], theirs[~clicked]
            user = log.users[start]
            pairs[user] = above.size * below.size
            right[user] = (above > below).sum() + (above == below).sum() / 2
    return Sums(right, pairs)


def _priority(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(_SEED).permutation(n)
