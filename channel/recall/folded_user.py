"""A user folded into the graph (CIKG, arXiv 2412.13544) from what is known at the moment: no stored user is needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.snapshot.graph import Graph
from serendipity.novelty import Clicks


@dataclass(frozen=True)
class FoldedUser:
    """The user's m neighbours in the graph: items clicked, then interests held.

    rows: [a] int64 item rows; interests: [m − a] int64, index of each interest; parts: [m, d] float32, what each adds
    to the user's vector, which is their sum.
    """

    graph: Graph
    rows: NDArray[np.int64]
    interests: NDArray[np.int64]
    parts: NDArray[np.float32]

    @classmethod
    def of(cls, graph: Graph, clicks: Clicks, held: NDArray[np.int64]) -> FoldedUser:
        """Fold a user in: u = (1 / √m) · Σ parts, over the neighbours that the graph knows.

        LightGCN's propagation (arXiv 2002.02126, eq. 3 and 4) is linear in a user's neighbours, so nothing is trained.
        """
        rows = np.unique(clicks.items[clicks.items > 0]) - 1
        items, interests = graph.item_parts[rows], graph.interest_parts[held]
        known, alive = items.any(axis=1), interests.any(axis=1)
        parts = np.concatenate([items[known], interests[alive]])
        return cls(graph, rows[known], held[alive], parts * np.float32(1 / np.sqrt(max(len(parts), 1))))

    def __len__(self) -> int:
        return len(self.parts)

    @cached_property
    def vector(self) -> NDArray[np.float32]:
        """[d]: the user."""
        summed: NDArray[np.float32] = self.parts.sum(axis=0)
        return summed

    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inner products with items, [n]."""
        scores: NDArray[np.float32] = self.graph.items.vectors[rows] @ self.vector
        return scores

    def lead(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the neighbour that adds most to the score of each of n items, and its share of all that is added.

        A score is the sum of what the neighbours add to it, so this is the score's reason and no estimate. Returns
        positions among the neighbours, [n], and shares, [n] in 0 to 1.
        """
        added = self.graph.items.vectors[rows] @ self.parts.T
        most = added.argmax(axis=1)
        raised = np.maximum(added, 0).sum(axis=1)
        share = np.maximum(added.max(axis=1), 0) / np.where(raised > 0, raised, 1)
        return most, share.astype(np.float32)
