"""The catalogue's taxonomy: every prefix of every item's category path is a node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from serendipity.layout import hash_of
from serendipity.offline.logs.catalogue import Catalogue

NO_NODE = -1
"""Parent of a node at the root, and node of an item without one at the level asked for."""


class TaxonomyError(Exception):
    """A taxonomy cannot be read; names the file, what was found and what was expected."""


@dataclass(frozen=True)
class TaxonomyNode:
    """One node.

    node_id: row in the interest vectors, never reused; path: from the top to the node; parent: node id, NO_NODE at the
    root; children: node ids; ranges: item rows [start, end) below the node that have a top-level category, ascending
    and apart; categories: numbers (index + 1) of the top-level categories of those items, ascending.
    """

    node_id: int
    path: tuple[str, ...]
    parent: int
    children: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    categories: tuple[int, ...]

    @property
    def name(self) -> str:
        """The last level of the path."""
        return self.path[-1]

    @property
    def text(self) -> str:
        """What the text encoder is given."""
        return " > ".join(self.path)


@dataclass(frozen=True)
class Taxonomy:
    """Nodes by id, and how the catalogue's rows lie under them.

    nodes: nodes[i].node_id == i. row_nodes: [n] int32, by item row, node of the path at novelty_level, NO_NODE where
    the path ends above it. categories: names of the top-level categories. novelty_level: level that is top-level.
    """

    nodes: tuple[TaxonomyNode, ...]
    row_nodes: NDArray[np.int32]
    categories: tuple[str, ...]
    novelty_level: int

    def __len__(self) -> int:
        return len(self.nodes)

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue, known: Sequence[tuple[str, ...]] = ()) -> Taxonomy:
        """Make the nodes of a catalogue.

        known: paths of the nodes of an earlier build in the order of their ids: they keep their ids, and those that
        no item has any longer stay without items. New nodes follow in the order of their paths, so that the same
        catalogue always gives the same ids.
        """
        ids = {path: node_id for node_id, path in enumerate(known)}
        found = {path[:depth] for path in catalogue.paths for depth in range(1, len(path) + 1)}
        # A known node's ancestors were known with it, so parents always exist.
        for path in sorted(found - ids.keys()):
            ids[path] = len(ids)
        ranges: list[list[list[int]]] = [[] for _ in ids]
        covered: list[set[int]] = [set() for _ in ids]
        row_nodes = np.full(len(catalogue), NO_NODE, np.int32)
        for row, (path, category) in enumerate(zip(catalogue.paths, catalogue.item_categories.tolist(), strict=True)):
            if category == 0:
                continue
            row_nodes[row] = ids[path[: catalogue.novelty_level + 1]]
            for depth in range(1, len(path) + 1):
                node_id = ids[path[:depth]]
                covered[node_id].add(category)
                runs = ranges[node_id]
                if runs and runs[-1][1] == row:
                    runs[-1][1] = row + 1
                else:
                    runs.append([row, row + 1])
        children: list[list[int]] = [[] for _ in ids]
        for path, node_id in ids.items():
            if len(path) > 1:
                children[ids[path[:-1]]].append(node_id)
        nodes = tuple(
            TaxonomyNode(
                node_id=node_id,
                path=path,
                parent=ids[path[:-1]] if len(path) > 1 else NO_NODE,
                children=tuple(sorted(children[node_id])),
                ranges=tuple((start, end) for start, end in ranges[node_id]),
                categories=tuple(sorted(covered[node_id])),
            )
            for path, node_id in ids.items()
        )
        return cls(nodes, row_nodes, tuple(catalogue.categories), catalogue.novelty_level)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over every node's path in the order of ids: equal exactly when ids mean the same."""
        return hash_of(json.dumps(node.path, ensure_ascii=False).encode() for node in self.nodes)

    @cached_property
    def texts(self) -> list[str]:
        """Text of every node for the encoder, by id."""
        return [node.text for node in self.nodes]

    def ancestors(self, node_id: int) -> list[int]:
        """List a node's ancestors, nearest first, without itself."""
        found = []
        while (node_id := self.nodes[node_id].parent) != NO_NODE:
            found.append(node_id)
        return found

    def shared_ancestor(self, first: int, second: int) -> int:
        """Find the nearest node above both (a node is above itself if it is above the other); NO_NODE if none is."""
        above = {first, *self.ancestors(first)}
        return next((node_id for node_id in (second, *self.ancestors(second)) if node_id in above), NO_NODE)


def read_paths(nodes: Path) -> list[tuple[str, ...]]:
    """Read the paths of nodes.parquet by node id; empty when there is no such file.

    Raises TaxonomyError when it cannot be read or its ids are not 0, 1, 2 ….
    """
    if not nodes.is_file():
        return []
    with duckdb.connect() as connection:
        try:
            rows = connection.execute(
                "SELECT node_id, path FROM read_parquet(?) ORDER BY node_id", [str(nodes)]
            ).fetchall()
        except duckdb.Error as error:
            raise TaxonomyError(
                f"{nodes}: cannot be read ({error}); expected nodes of the interests builder"
            ) from error
    if [row[0] for row in rows] != list(range(len(rows))):
        raise TaxonomyError(f"{nodes}: node ids are not 0 … {len(rows) - 1}, each once")
    return [tuple(row[1]) for row in rows]
