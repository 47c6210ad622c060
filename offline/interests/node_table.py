"""nodes.parquet: the interest nodes by id, the table that outlives builds.

node_id, name, path, parent (NULL at the root), starts, ends, categories, origin, aliases; sorted by node_id. The file's
metadata holds the id of the vocabulary, so that ids and what they belong to cannot be separated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serendipity.layout import hash_of
from serendipity.offline.errors import BuilderError
from serendipity.offline.interests.taxonomy import NO_NODE, KnownNode, Taxonomy, TaxonomyNode
from serendipity.offline.parquet import reading, write_rows

NODES = "nodes.parquet"

_VOCABULARY_ID = "vocabulary_id"

_TYPES = {
    "node_id": "UINTEGER", "name": "VARCHAR", "path": "VARCHAR[]", "parent": "UINTEGER", "starts": "UINTEGER[]",
    "ends": "UINTEGER[]", "categories": "UINTEGER[]", "origin": "UTINYINT", "aliases": "VARCHAR[]",
}  # fmt: skip


class NodeTableError(BuilderError):
    """The table of nodes cannot be read: names the file, what was found and what was expected."""


@dataclass(frozen=True)
class NodeTable:
    """Nodes by id and the vocabulary they belong to: 16 hex digits."""

    vocabulary_id: str
    nodes: tuple[TaxonomyNode, ...]

    @property
    def known(self) -> list[KnownNode]:
        """What a later build has to know of the nodes, by id."""
        return [KnownNode(node.path, node.origin, node.aliases) for node in self.nodes]


def write_nodes(directory: Path, taxonomy: Taxonomy, vocabulary_id: str) -> None:
    """Write nodes.parquet below an interests directory."""
    rows = (
        {
            "node_id": node.node_id,
            "name": node.name,
            "path": node.path,
            "parent": None if node.parent == NO_NODE else node.parent,
            "starts": [start for start, _ in node.ranges],
            "ends": [end for _, end in node.ranges],
            "categories": node.categories,
            "origin": int(node.origin),
            "aliases": node.aliases,
        }
        for node in taxonomy.nodes
    )
    write_rows(directory / NODES, _TYPES, rows, {_VOCABULARY_ID: vocabulary_id})


def read_nodes(directory: Path) -> NodeTable | None:
    """Read nodes.parquet below an interests directory; None when there is no such file.

    Raises NodeTableError when it cannot be read, belongs to no vocabulary, or its ids are not 0, 1, 2 ….
    """
    path = directory / NODES
    if not path.is_file():
        return None
    columns = "node_id, path, parent, starts, ends, categories, origin, aliases"
    with reading(path, NodeTableError, "nodes of the interests builder") as query:
        rows = query(f"SELECT {columns} FROM read_parquet(?) ORDER BY 1").fetchall()
        found = query(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?", _VOCABULARY_ID
        ).fetchone()
    if [row[0] for row in rows] != list(range(len(rows))):
        raise NodeTableError(f"{path}: node ids are not 0 … {len(rows) - 1}, each once")
    if found is None:
        raise NodeTableError(f"{path}: {_VOCABULARY_ID}: found none in the metadata, expected 16 hex digits")
    return NodeTable(found[0], _nodes(rows))


def vocabulary_id_of(nodes: Sequence[TaxonomyNode]) -> str:
    """Name the vocabulary that begins with these nodes: 16 hex digits, equal for equal nodes."""
    return hash_of(json.dumps(node.path, ensure_ascii=False).encode() for node in nodes)[:16]


def known_nodes(directory: Path) -> list[KnownNode]:
    """Read what a build has to know of the nodes of an interests directory; empty when there are none yet.

    Raises NodeTableError as `read_nodes` does.
    """
    table = read_nodes(directory)
    return table.known if table else []


def _nodes(rows: list[tuple[Any, ...]]) -> tuple[TaxonomyNode, ...]:
    children: list[list[int]] = [[] for _ in rows]
    for node_id, _, parent, *_ in rows:
        if parent is not None:
            children[parent].append(node_id)
    return tuple(
        TaxonomyNode(
            node_id=node_id,
            path=tuple(path),
            parent=NO_NODE if parent is None else parent,
            children=tuple(children[node_id]),
            ranges=tuple(zip(starts, ends, strict=True)),
            categories=tuple(categories),
            origin=origin,
            aliases=tuple(aliases),
        )
        for node_id, path, parent, starts, ends, categories, origin, aliases in rows
    )
