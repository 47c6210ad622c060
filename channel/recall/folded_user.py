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

    held: [h] int64, index of each interest held. Folded in when first asked for: most requests do without the graph.
    """

    graph: Graph
    clicks: Clicks
    held: NDArray[np.int64]

    @cached_property
    def _neighbours(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Those that the graph knows, of u = (1 / √m) · Σ parts.

        LightGCN's propagation (arXiv 2002.02126, eq. 3 and 4) is linear in a user's neighbours, so nothing is trained.
        """
        rows = np.unique(self.clicks.items[self.clicks.items > 0]) - 1
        items, interests = self.graph.item_parts[rows], self.graph.interest_parts[self.held]
        known, alive = items.any(axis=1), interests.any(axis=1)
        parts = np.concatenate([items[known], interests[alive]])
        return rows[known], self.held[alive], parts * np.float32(1 / np.sqrt(max(len(parts), 1)))

    @property
    def rows(self) -> NDArray[np.int64]:
        """[a]: rows of the items clicked."""
        return self._neighbours[0]

    @property
    def interests(self) -> NDArray[np.int64]:
        """[m − a]: index of each interest held."""
        return self._neighbours[1]

    @property
    def parts(self) -> NDArray[np.float32]:
        """[m, d]: what each neighbour adds to the user's vector, which is their sum."""
        return self._neighbours[2]

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
