"""The catalogue's taxonomy: every prefix of every item's category path is a node.

Interests that reasoners named, clustered, are nodes of the same id space (see `vocabulary`): each is a child of the
catalogue's node it is grounded in and has that node's items.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serendipity.layout import hash_of
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.v1 import records_pb2

NO_NODE = -1
"""Parent of a node at the root, and node of an item without one at the level asked for."""


@dataclass(frozen=True)
class KnownNode:
    """A node of an earlier build: its path from the top, where it comes from, and its other names."""

    path: tuple[str, ...]
    origin: records_pb2.NodeOrigin = records_pb2.NODE_ORIGIN_CATALOGUE
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaxonomyNode:
    """One node.

    node_id: row in the interest vectors, never reused; path: from the top to the node; parent: node id, NO_NODE at the
    root; children: node ids; ranges: item rows [start, end) below the node that have a top-level category, ascending
    and apart; categories: numbers (index + 1) of the top-level categories of those items, ascending. origin: where it
    comes from; ranges and categories of a reasoner's node are its parent's. aliases: other names.
    """

    node_id: int
    path: tuple[str, ...]
    parent: int
    children: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    categories: tuple[int, ...]
    origin: records_pb2.NodeOrigin = records_pb2.NODE_ORIGIN_CATALOGUE
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last level of the path."""
        return self.path[-1]

    @property
    def text(self) -> str:
        """What the text encoder is given."""
        return " > ".join(self.path)

    @property
    def of_catalogue(self) -> bool:
        """False for a cluster of interests that reasoners named."""
        return self.origin != records_pb2.NODE_ORIGIN_REASONER


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
    def from_catalogue(cls, catalogue: Catalogue, known: Sequence[KnownNode] = ()) -> Taxonomy:
        """Make the nodes of a catalogue.

        known: nodes of an earlier build in the order of their ids: they keep their ids, and those that no item has any
        longer stay without items. New nodes follow in the order of their paths, so that the same catalogue always
        gives the same ids. A reasoner's node whose path the catalogue has meanwhile is the catalogue's from then on.
        """
        found = {path[:depth] for path in catalogue.paths for depth in range(1, len(path) + 1)}
        # A known node's ancestors were known with it, so parents always exist.
        fresh = sorted(found - {node.path for node in known})
        nodes = [*known, *(KnownNode(path) for path in fresh)]
        ids = {node.path: node_id for node_id, node in enumerate(nodes)}
        ranges: list[list[list[int]]] = [[] for _ in nodes]
        covered: list[set[int]] = [set() for _ in nodes]
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
        children: list[list[int]] = [[] for _ in nodes]
        for path, node_id in ids.items():
            if len(path) > 1:
                children[ids[path[:-1]]].append(node_id)
        made: list[TaxonomyNode] = []
        for node_id, node in enumerate(nodes):
            parent = ids[node.path[:-1]] if len(node.path) > 1 else NO_NODE
            by_reasoner = node.origin == records_pb2.NODE_ORIGIN_REASONER and node.path not in found
            grounded_in = parent if by_reasoner else node_id
            made.append(
                TaxonomyNode(
                    node_id=node_id,
                    path=node.path,
                    parent=parent,
                    children=tuple(sorted(children[node_id])),
                    ranges=tuple((start, end) for start, end in ranges[grounded_in]),
                    categories=tuple(sorted(covered[grounded_in])),
                    origin=records_pb2.NODE_ORIGIN_REASONER if by_reasoner else records_pb2.NODE_ORIGIN_CATALOGUE,
                    aliases=node.aliases,
                )
            )
        return cls(tuple(made), row_nodes, tuple(catalogue.categories), catalogue.novelty_level)

    @property
    def known(self) -> list[KnownNode]:
        """What a later build has to know of the nodes, by id."""
        return [KnownNode(node.path, node.origin, node.aliases) for node in self.nodes]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the path of every node of the catalogue in the order of ids.

        Within one vocabulary it is equal exactly when the catalogue's nodes are: reasoners' nodes do not change it.
        """
        return hash_of(json.dumps(node.path, ensure_ascii=False).encode() for node in self.nodes if node.of_catalogue)

    @cached_property
    def texts(self) -> list[str]:
        """Text of every node for the encoder, by id."""
        return [node.text for node in self.nodes]

    @property
    def searched_names(self) -> list[tuple[str, int]]:
        """Names that searches are matched with (`SearchMatcher`), each with its top-level category's number."""
        return [
            (node.name, node.categories[0])
            for node in self.nodes
            if node.of_catalogue and len(node.path) > self.novelty_level and len(node.categories) == 1
        ]
