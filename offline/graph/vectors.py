"""What training leaves: vectors of items, and the parts that any user is folded in from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GraphVectors:
    """Vectors of a trained graph, float32; a score is a user's vector times an item's.

    item_vectors: [items, d], what is searched; item_parts: [items, d] and interest_parts: [interests, d], what a click
    on the item or a held interest adds to a user's vector; user_vectors: [users, d], of the users of the graph.

    With T_n = Σ_{l<L} e_n^(l) / ((L + 1) √d_n) of a neighbour n, a user whose layer 0 is zero has exactly the vector
    Σ_n T_n / √d_u over the d_u clicked items and held interests: the mean of layers, written by the last step.
    """

    item_vectors: NDArray[np.float32]
    item_parts: NDArray[np.float32]
    interest_parts: NDArray[np.float32]
    user_vectors: NDArray[np.float32]

    def fold_in(self, items: NDArray[np.int64], interests: NDArray[np.int64]) -> NDArray[np.float32]:
        """Make the vector of a user from distinct clicked items and held interests: [d], zero without any."""
        parts = np.concatenate([self.item_parts[items], self.interest_parts[interests]])
        folded: NDArray[np.float32] = parts.sum(axis=0) / np.float32(np.sqrt(max(1, len(parts))))
        return folded

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score all items for users of the graph: [users, items]."""
        found: NDArray[np.float32] = self.user_vectors[users] @ self.item_vectors.T
        return found
