"""The graph of a snapshot: vectors that items are found by, and parts that any user is folded in from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.arrays import map_array
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.snapshot.vectors import ItemVectors
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class Graph:
    """Graph vectors of n items and h held interests, of dimension d, mapped.

    items: [n, d], searched; item_parts: [n, d], interest_parts: [h, d], both float32, what a neighbour adds to a user;
    interests: names of the h. Parts of items that the graph does not know are 0.
    """

    items: ItemVectors
    item_parts: NDArray[np.float32]
    interest_parts: NDArray[np.float32]
    interests: tuple[str, ...]

    @classmethod
    def open(cls, directory: Path, spec: records_pb2.GraphSpec, num_items: int, gpu: bool = False) -> Graph:
        """Map a snapshot's graph as its manifest describes it.

        Raises SnapshotUnavailable naming the file that is missing or of another shape, ValueError for one of another
        type.
        """
        index = spec.vector_index
        items = ItemVectors.open(directory, index, gpu, layout.GRAPH_ITEM_VECTORS, layout.GRAPH_ITEM_INDEX)
        item_parts = map_array(directory / layout.GRAPH_ITEM_PARTS, np.float32, 2)
        interest_parts = map_array(directory / layout.GRAPH_INTEREST_PARTS, np.float32, 2)
        for name, found, rows in (
            (layout.GRAPH_ITEM_VECTORS, items.vectors.shape, num_items),
            (layout.GRAPH_ITEM_PARTS, item_parts.shape, num_items),
            (layout.GRAPH_INTEREST_PARTS, interest_parts.shape, len(spec.interests)),
        ):
            if found != (rows, index.dim):
                raise SnapshotUnavailable(
                    f"{directory / name}: found shape {found}, expected {(rows, index.dim)} by the manifest"
                )
        return cls(items, item_parts, interest_parts, tuple(spec.interests))
