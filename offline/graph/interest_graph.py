"""The collaborative interest knowledge graph: who clicked what and holds which interest, what is known of the items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serendipity.offline.errors import BuilderError


class GraphError(BuilderError):
    """A graph, or a file that one is read from, cannot be used; names what was found and what was expected."""


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
    def first_interest(self) -> int:
        """Node of interest 0."""
        return self.num_users + self.num_items + self.num_entities

    def _check(self, name: str, rows: tuple[tuple[str, int | None], ...]) -> None:
        given: ArrayLike = getattr(self, name)
        columns = np.asarray(given, dtype=np.int64).reshape(len(rows), -1)
        object.__setattr__(self, name, columns)
        for values, (kind, number) in zip(columns, rows, strict=True):
            wrong = values[(values < 0) | (values >= number)] if number is not None else values[values < 0]
            if len(wrong):
                bound = f"below {number}" if number is not None else "of 0 or more"
                raise GraphError(f"graph, {name}: found {kind} {wrong[0]}, expected one {bound}")
