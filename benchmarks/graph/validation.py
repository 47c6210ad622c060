"""Clicks that are held out of a graph, and what vectors are worth on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph.ranking import rank
from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.graph.trainer import Validate
from serendipity.offline.graph.vectors import GraphVectors

CHOSEN_BY = 50
"""K of the NDCG on held-out clicks that epochs and settings are chosen by."""

_HELD_OUT = 0.125
"""Share of the clicks that is held out: a tenth of all, where train is 8:2."""


def validation_of(graph: InterestGraph, seed: int) -> tuple[InterestGraph, Validate]:
    """Part a graph's clicks: the graph without those held out, and NDCG@50 on them by full ranking."""
    kept, held = hold_out(graph.clicks, _HELD_OUT, np.random.default_rng([seed, 1]))

    def validate(vectors: GraphVectors) -> float:
        return float(rank(vectors.scores, graph.num_items, kept, held, [CHOSEN_BY]).ndcg[CHOSEN_BY].mean())

    return graph.with_clicks(kept), validate


def hold_out(clicks: NDArray[np.int64], share: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """Part clicks into those to learn from and those to validate on: [2, E] each.

    Of a user's n clicks round(share · n) are held out at random, at least one of two or more; a single click stays.
    """
    order = np.lexsort((rng.random(clicks.shape[1]), clicks[0]))
    users = clicks[0][order]
    _, first, counts = np.unique(users, return_index=True, return_counts=True)
    number = np.where(counts > 1, np.maximum(1, np.rint(share * counts)), 0)
    held = np.arange(len(users)) - np.repeat(first, counts) < np.repeat(number, counts)
    return clicks[:, order[~held]], clicks[:, order[held]]
