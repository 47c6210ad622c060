"""Items by how near their category is to those a user clicks in, where a host's own logs hardly tell.

What lies near what may come from texts, or from another host's build of the same categories: its users are others, what
goes with what is the same. The items of a category are ranked by popularity.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.text import comparable
from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut, Score
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times

EXPONENTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Tried for the nearness of a category; 0: popularity alone."""

VALIDATION_START = 0.8
"""Share of the clicks before the validation period, which ends at the cut."""

DEPTHS = (20, 100)
"""K of the recall that is chosen by, the geometric mean."""


def by_texts(categories: Sequence[str]) -> NDArray[np.float32]:
    """Cosines of the categories' names, [C + 1, C + 1] by number."""
    vectors = TextEncoder(default_path()).encode([comparable(name) for name in categories])
    return np.pad(vectors @ vectors.T, ((1, 0), (1, 0)))


def carried_over(logs: Path, categories: Sequence[str], left_out: Sequence[str]) -> NDArray[np.float32]:
    """Cosines of the categories by who clicked them in another build, [C + 1, C + 1] by the number they have here.

    logs: of the other build, as of its own moment; left_out: ids of users that do not count there. A category that the
    other build lacks is near nothing.
    """
    histories, theirs = Histories.read(logs), Catalogue.read(logs).categories
    clicked = np.zeros((len(histories), len(theirs) + 1), np.float32)
    clicked[histories.users, histories.categories] = 1
    clicked[[histories.user_numbers[user] for user in left_out if user in histories.user_numbers]] = 0
    lengths = np.maximum(np.sqrt(clicked.sum(axis=0)), 1)
    near = (clicked.T @ clicked) / np.outer(lengths, lengths)
    numbers = {name: number for number, name in enumerate(theirs, 1)}
    at = np.array([0, *(numbers.get(name, 0) for name in categories)])
    near = near[np.ix_(at, at)]
    near[at == 0] = near[:, at == 0] = 0
    carried: NDArray[np.float32] = near.astype(np.float32)
    return carried


def near_popular(near: NDArray[np.float32], held_out: HeldOut, statistics: ClickStatistics, exponent: float) -> Score:
    """Rank by nearness^exponent × the item's users. Nearness of a category: the mean over the user's, log(1 + clicks)
    each, of `near`; of those the user clicks in none lies nearer than itself, and they are not novel."""
    users, categories = statistics.users[held_out.candidates], held_out.item_categories[held_out.candidates]

    def score(some: NDArray[np.int64]) -> NDArray[np.float32]:
        evidence = np.log1p(statistics.own_clicks[some])
        evidence /= np.maximum(evidence.sum(axis=1, keepdims=True), 1e-9)
        nearness = np.maximum(evidence @ near, 1e-6) ** np.float32(exponent)
        scores: NDArray[np.float32] = nearness[:, categories] * users
        return scores

    return score


def choose_exponent(near: NDArray[np.float32], histories: Histories, catalogue: Catalogue, cut: int) -> float:
    """Choose the exponent on the validation period before the cut, the smallest of the best."""
    start = split_times(histories, (VALIDATION_START,))[0]
    held_out = HeldOut.between(histories, catalogue, start, cut)
    statistics, targets = ClickStatistics.of(histories, held_out), held_out.novel
    if not len(targets):
        return 0.0

    def recall(exponent: float) -> float:
        score = near_popular(near, held_out, statistics, exponent)
        ranked = held_out.top_k(score, targets.users, max(DEPTHS), novel=True)
        return float(np.prod([targets.recall(ranked, k).mean() for k in DEPTHS]))

    return max(EXPONENTS, key=recall)
