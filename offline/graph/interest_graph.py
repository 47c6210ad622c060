"""The collaborative interest knowledge graph: who clicked what and holds which interest, what is known of the items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from serendipity.offline.errors import BuilderError


class GraphError(BuilderError):
    """A graph, or a file that one is read from, cannot be used; names what was found and what was expected."""


class View(Enum):
    """Which edges a look at the graph holds; every view has the clicks."""

    COLLABORATIVE = "collaborative"
    INTEREST = "interest-augmented"
    KNOWLEDGE = "knowledge-augmented"
    WHOLE = "whole"


@dataclass(frozen=True)
class InterestGraph:
    """A graph with typed edges. Nodes stand in the order users, items, entities, interests.

    clicks: [2, E] user and item; holds: [2, E] user and interest that the user's past supports; knowledge: [3, E] head,
    relation, tail, where heads and tails are items (from 0) and then entities (from num_items). A tuple of columns is
    taken too. An edge that is named twice counts once. Raises GraphError for an index out of range.
    """

    num_users: int
    num_items: int
    num_entities: int
    num_interests: int
    clicks: NDArray[np.int64]
    holds: NDArray[np.int64]
    knowledge: NDArray[np.int64]

    def __post_init__(self) -> None:
        known = self.num_items + self.num_entities
        self._check("clicks", (("user", self.num_users), ("item", self.num_items)))
        self._check("holds", (("user", self.num_users), ("interest", self.num_interests)))
        self._check("knowledge", (("head", known), ("relation", None), ("tail", known)))

    @property
    def num_nodes(self) -> int:
        """Nodes of all kinds."""
        return self.num_users + self.num_items + self.num_entities + self.num_interests

    @property
    def num_relations(self) -> int:
        """Relations of the knowledge: one more than the highest."""
        return int(self.knowledge[1].max()) + 1 if self.knowledge.shape[1] else 0

    @property
    def first_interest(self) -> int:
        """Node of interest 0."""
        return self.num_users + self.num_items + self.num_entities

    def edges(self, view: View) -> NDArray[np.int64]:
        """Give the view's undirected edges: [2, E] nodes, the lower first, each once, no node with itself."""
        parts = [np.stack([self.clicks[0], self.num_users + self.clicks[1]])]
        if view in (View.INTEREST, View.WHOLE):
            parts.append(np.stack([self.holds[0], self.first_interest + self.holds[1]]))
        if view in (View.KNOWLEDGE, View.WHOLE):
            parts.append(self.num_users + self.knowledge[[0, 2]])
        pairs = np.sort(np.concatenate(parts, axis=1), axis=0)
        pairs = pairs[:, pairs[0] != pairs[1]]
        keys = np.unique(pairs[0] * self.num_nodes + pairs[1])
        return np.stack([keys // self.num_nodes, keys % self.num_nodes])

    def adjacency(self, view: View, knowledge_weight: float = 1.0) -> scipy.sparse.csr_matrix:
        """Make the normalised adjacency Â = D^(−1/2) A D^(−1/2) of a view: [nodes, nodes], float32, no self-loops.

        knowledge_weight: of an edge of the knowledge in A and D; clicks and held interests weigh 1.
        """
        low, high = self.edges(view)
        scale = 1.0 / np.sqrt(np.maximum(self.degrees(view, knowledge_weight), np.finfo(np.float64).tiny))
        values = (self._weights(low, high, knowledge_weight) * scale[low] * scale[high]).astype(np.float32)
        places = (np.concatenate([low, high]), np.concatenate([high, low]))
        return scipy.sparse.csr_matrix((np.tile(values, 2), places), shape=(self.num_nodes, self.num_nodes))

    def degrees(self, view: View, knowledge_weight: float = 1.0) -> NDArray[np.float64]:
        """Sum the weights of every node's edges: [nodes]."""
        low, high = self.edges(view)
        weights = np.tile(self._weights(low, high, knowledge_weight), 2)
        sums: NDArray[np.float64] = np.bincount(
            np.concatenate([low, high]), weights=weights, minlength=self.num_nodes
        ).astype(np.float64)
        return sums

    def _weights(self, low: NDArray[np.int64], high: NDArray[np.int64], knowledge_weight: float) -> NDArray[np.float64]:
        known = (low >= self.num_users) & (high < self.first_interest)
        return np.where(known, knowledge_weight, 1.0)

    def with_clicks(self, clicks: NDArray[np.int64]) -> InterestGraph:
        """Give the same graph with other clicks."""
        return replace(self, clicks=clicks)

    def without_interests(self) -> InterestGraph:
        """Give the same graph without its interest edges."""
        return replace(self, holds=np.empty((2, 0), np.int64))

    def without_knowledge(self) -> InterestGraph:
        """Give the same graph without its knowledge."""
        return replace(self, knowledge=np.empty((3, 0), np.int64))

    def _check(self, name: str, rows: tuple[tuple[str, int | None], ...]) -> None:
        given: ArrayLike = getattr(self, name)
        columns = np.asarray(given, dtype=np.int64).reshape(len(rows), -1)
        object.__setattr__(self, name, columns)
        for values, (kind, number) in zip(columns, rows, strict=True):
            wrong = values[(values < 0) | (values >= number)] if number is not None else values[values < 0]
            if len(wrong):
                bound = f"below {number}" if number is not None else "of 0 or more"
                raise GraphError(f"graph, {name}: found {kind} {wrong[0]}, expected one {bound}")
