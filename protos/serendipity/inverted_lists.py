"""Which inverted lists a search reads: the one definition that the builder measures and the channel serves by.

Every list holds items of one top-level category, near each other. A restriction to categories is then a choice of
lists: however far the allowed rows lie from the query, the lists read are the nearest of those that hold some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEARCHED = 1_000
"""Rows found that the recall of an index is measured with: as many as a request for 100 candidates asks for."""


def prepare(index: Any) -> None:
    """Make a FAISS IVF index ready for `search_lists`, once: the number of probes is a bound, the lists are given."""
    index.nprobe = index.nlist


def search_lists(index: Any, query: NDArray[np.float32], lists: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Find about the k best rows in some lists of a FAISS IVF index, best first. query: [d]. Thread-safe."""
    probes = np.full((1, index.nlist), -1, np.int64)
    probes[0, : len(lists)] = lists
    _, (rows,) = index.search_preassigned(query[None], k, probes, None)
    found: NDArray[np.int64] = rows[rows >= 0]
    return found


@dataclass(frozen=True)
class InvertedLists:
    """L lists, sorted by category.

    centroids: [L, d] float32; sizes: [L] int64 items; category_offsets: [c + 1] int64, lists of each category.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    category_offsets: NDArray[np.int64]

    def nearest(self, query: NDArray[np.float32], allowed: NDArray[np.bool_], least: int) -> NDArray[np.int64]:
        """Choose the lists with the highest inner product that together hold at least `least` items, best first.

        query: [d]; allowed: [c + 1] bool by category number (entry 0, of items without one, is not looked at).
        """
        lists = np.flatnonzero(np.repeat(allowed[1:], np.diff(self.category_offsets)))
        lists = lists[np.argsort(-(self.centroids[lists] @ query), kind="stable")]
        enough = int(np.searchsorted(np.cumsum(self.sizes[lists]), least)) + 1
        return lists[:enough]
