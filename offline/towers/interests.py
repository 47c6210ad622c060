"""What the towers need of latent interests: vectors of their texts, where they are grounded, whose they were when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.logs.histories import Histories

NO_NODE = -1

InterestsAt = Callable[[int, Sequence[int], int], NDArray[np.int32]]
"""Time (Unix seconds), users and k → [len(users), k] node ids, best first, NO_NODE past the last, from what happened
before that time: as a reasoner fitted before it would have given them then."""


@dataclass(frozen=True)
class InterestNodes:
    """Nodes of the taxonomy as the towers see them.

    vectors: [N, D] float32, text embedding of each node. item_nodes: [n, levels] int32, the nodes each item row is
    grounded in, most general first, NO_NODE past the last. encoder: name of the text encoder.
    """

    vectors: NDArray[np.float32]
    item_nodes: NDArray[np.int32]
    encoder: str

    @classmethod
    def from_ranges(
        cls, vectors: NDArray[np.float32], ranges: Sequence[Sequence[tuple[int, int]]], num_items: int, encoder: str
    ) -> InterestNodes:
        """Lay the row ranges of every node out by item; ranges[node] lists half-open row ranges."""
        widths = [sum(end - start for start, end in spans) for spans in ranges]
        filled = np.zeros(num_items, np.int32)
        columns: list[NDArray[np.int32]] = []
        for node in sorted(range(len(ranges)), key=lambda node: (-widths[node], node)):
            for start, end in ranges[node]:
                depths = filled[start:end]
                while len(columns) <= int(depths.max(initial=-1)):
                    columns.append(np.full(num_items, NO_NODE, np.int32))
                for depth in np.unique(depths):
                    part = np.flatnonzero(depths == depth) + start
                    columns[depth][part] = node
                filled[start:end] += 1
        item_nodes = np.stack(columns, axis=1) if columns else np.full((num_items, 1), NO_NODE, np.int32)
        return cls(vectors, item_nodes, encoder)

    def slots(self, nodes: NDArray[np.int32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the interest each item is grounded in. nodes: [n, K] of the item's user; rows: [n] item rows.

        Returns [n]: 1 … K, the first (best) interest that holds the item, 0 (the null interest) when none does.
        """
        grounded = (nodes[:, :, None] == self.item_nodes[rows][:, None, :]) & (nodes != NO_NODE)[:, :, None]
        within = grounded.any(axis=2)
        found: NDArray[np.int64] = np.where(within.any(axis=1), within.argmax(axis=1) + 1, 0)
        return found


class ReasonedInterests:
    """Interests of the taxonomy reasoner, fitted once, before the earliest moment it is asked about."""

    def __init__(self, histories: Histories, taxonomy: Taxonomy) -> None:
        """Take what the reasoner is fitted on; it sees the part before each moment."""
        self._histories = histories
        self._taxonomy = taxonomy
        self._fitted: tuple[int, TaxonomyReasoner] | None = None

    def __call__(self, time: int, users: Sequence[int], k: int) -> NDArray[np.int32]:
        """Give [len(users), k] node ids as of a moment, from clicks strictly before it."""
        if self._fitted is None or time < self._fitted[0]:
            self._fitted = time, fit_reasoner(self._taxonomy, self._histories, time)
        return self._fitted[1].nodes(contexts_at(self._histories, time, users), k)
