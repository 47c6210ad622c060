"""How near categories are by who clicks them, and the demands behind them: clusters of near ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from benchmarks.coea.protocol import CategorySplit, category_counts


@dataclass(frozen=True)
class Demands:
    """lift: [C, C], see `click_lift`. named_by: [C] int64, number of the category that names each one's demand."""

    lift: NDArray[np.float64]
    named_by: NDArray[np.int64]

    @classmethod
    def of(cls, split: CategorySplit, number: int | None = None) -> Demands:
        """Cluster the categories (average linkage on 1 / (1 + lift)) into `number` demands, √C by default.

        A demand is named by its most clicked category; ties: the smallest number.
        """
        lift = click_lift(category_counts(split.training, split.num_categories) > 0)
        wanted = number or math.isqrt(split.num_categories)
        labels = np.ones(len(lift), np.int64)
        if len(lift) > 1:
            distances = 1.0 / (1.0 + lift)
            np.fill_diagonal(distances, 0.0)
            labels = fcluster(linkage(squareform(distances, checks=False), "average"), wanted, "maxclust")
        named_by = np.empty(len(lift), np.int64)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            named_by[members] = members[np.argmax(split.category_clicks[members])] + 1
        return cls(lift, named_by)

    @property
    def named(self) -> list[int]:
        """Numbers of the categories that name a demand."""
        return sorted(set(self.named_by.tolist()))

    def chain(self, recent: Sequence[int], target: int) -> tuple[int, int]:
        """Say which of some categories is nearest to a target (ties: the first) and what the target's demand is."""
        nearest = max(recent, key=lambda number: float(self.lift[number - 1, target - 1]))
        return nearest, int(self.named_by[target - 1])


def click_lift(clicked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure p(a, b) / (p(a) p(b)) over users.

    clicked: [U, C] bool. Returns [C, C]: 1 where categories are independent, 0 where one is never clicked.
    """
    counts = clicked.astype(np.float64)
    both, each = counts.T @ counts, counts.sum(axis=0)
    lift: NDArray[np.float64] = both * len(counts) / np.maximum(np.outer(each, each), 1.0)
    return lift
