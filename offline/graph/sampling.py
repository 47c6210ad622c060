"""What a step is shown: clicks of an epoch in random order, and items the user did not click."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph


class ClickSampler:
    """Draws triples of a user, a clicked item and another item."""

    def __init__(self, graph: InterestGraph) -> None:
        self._num_items = graph.num_items
        self._keys = np.unique(graph.clicks[0] * graph.num_items + graph.clicks[1])
        clicked = np.bincount(self._keys // graph.num_items)
        if not len(self._keys):
            raise GraphError("graph, clicks: found none, expected at least one to learn from")
        if clicked.max() == graph.num_items:
            raise GraphError(f"graph, clicks: found user {clicked.argmax()} with all items, expected one to tell from")

    def epoch(self, batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Give every click once, `batch` at a time: [3, batch] user, clicked item, item not clicked."""
        keys = rng.permutation(self._keys)
        for start in range(0, len(keys), batch):
            users, items = np.divmod(keys[start : start + batch], self._num_items)
            yield np.stack([users, items, self._others(users, rng)])

    def _others(self, users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        items = rng.integers(self._num_items, size=len(users))
        again = np.arange(len(users))
        while len(again):
            keys = users[again] * self._num_items + items[again]
            places = np.searchsorted(self._keys, keys)
            again = again[self._keys[np.minimum(places, len(self._keys) - 1)] == keys]
            items[again] = rng.integers(self._num_items, size=len(again))
        return items
