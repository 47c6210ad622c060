"""Recall and NDCG by full ranking: every item is a candidate but those the user clicked before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (20, 50, 100)
"""K."""

_BLOCK = 1024

Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Users → their scores of all items, [users, items], higher is better; the array may be written to."""


@dataclass(frozen=True)
class Ranking:
    """What a ranking is worth to each user who has something to be found.

    users: [n]; recall, ndcg: K → [n], in the order of users.
    """

    users: NDArray[np.int64]
    recall: dict[int, NDArray[np.float64]]
    ndcg: dict[int, NDArray[np.float64]]


def rank(
    scores: Scores,
    num_items: int,
    known: NDArray[np.int64],
    wanted: NDArray[np.int64],
    cutoffs: Sequence[int] = CUTOFFS,
) -> Ranking:
    """Rank all items for every user of `wanted` and count what is found.

    known, wanted: [2, E] user and item; known items are no candidates. Recall@K is the found share of a user's wanted
    items; NDCG@K has binary gains and the ideal of min(K, wanted) items.
    """
    users, counts = np.unique(wanted[0], return_counts=True)
    most = min(max(cutoffs), num_items)
    discounts = 1.0 / np.log2(np.arange(most) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    recall = {k: np.empty(len(users)) for k in cutoffs}
    ndcg = {k: np.empty(len(users)) for k in cutoffs}
    for start in range(0, len(users), _BLOCK):
        block = users[start : start + _BLOCK]
        values = scores(block)
        values[_cells(known, block)] = -np.inf
        target = np.zeros(values.shape, bool)
        target[_cells(wanted, block)] = True
        best = np.argpartition(-values, most - 1, axis=1)[:, :most]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(values, best, 1), axis=1, kind="stable"), 1)
        hits = np.take_along_axis(target, best, axis=1)
        number = counts[start : start + len(block)]
        for k in cutoffs:
            recall[k][start : start + len(block)] = hits[:, :k].sum(axis=1) / number
            gains = hits[:, :k] @ discounts[: min(k, most)]
            ndcg[k][start : start + len(block)] = gains / ideal[np.minimum(number, min(k, most))]
    return Ranking(users, recall, ndcg)


def _cells(pairs: NDArray[np.int64], users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the pairs of some ascending users: rows among them, and columns."""
    rows = np.minimum(np.searchsorted(users, pairs[0]), len(users) - 1)
    mine = users[rows] == pairs[0]
    return rows[mine], pairs[1][mine]
