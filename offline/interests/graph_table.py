"""graphs.parquet: the knowledge graph of every user of a build."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from serendipity.offline.interests.graph import GraphError, UserGraph
from serendipity.offline.parquet import reading, write_rows

GRAPHS = "graphs.parquet"

_TYPES = {
    "user_id": "VARCHAR",
    "reasoner": "VARCHAR",
    "generated_at": "BIGINT",
    "nodes": "STRUCT(key VARCHAR, kind VARCHAR, text VARCHAR, interest_node UINTEGER, grounded_by VARCHAR, "
    "similarity DOUBLE, dropped VARCHAR)[]",
    "edges": "STRUCT(source VARCHAR, target VARCHAR, relation VARCHAR, score DOUBLE, agents VARCHAR[])[]",
}


def write_graphs(interests: Path, graphs: Iterable[UserGraph]) -> None:
    """Write graphs.parquet below an interests directory, sorted as they come; graphs without nodes are left out."""
    write_rows(interests / GRAPHS, _TYPES, (vars(graph) for graph in graphs if graph.nodes))


def read_graph(interests: Path, user_id: str) -> UserGraph:
    """Read one user's graph. Raises GraphError when there is none or the file cannot be read."""
    path = interests / GRAPHS
    if not path.is_file():
        raise GraphError(f"{path}: missing; expected the output of the interests builder")
    with reading(path, GraphError, "the output of the interests builder") as query:
        row = query(f"SELECT {', '.join(_TYPES)} FROM read_parquet(?) WHERE user_id = ?", user_id).fetchone()
    if row is None:
        raise GraphError(f"{path}: found no graph of user {user_id!r}; expected one of a user with interests")
    return UserGraph.from_fields(dict(zip(_TYPES, row, strict=True)))
