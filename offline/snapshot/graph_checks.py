"""The checks that a snapshot's graph, and the interests that users hold, have to pass before a byte is written."""

from __future__ import annotations

from serendipity.interests.text import clean_text
from serendipity.offline.graph.served_graph import MAX_HELD
from serendipity.offline.snapshot.contents import SnapshotContents, check_vectors, require
from serendipity.v1 import records_pb2


def check_graph(contents: SnapshotContents) -> None:
    """Check that there is a vector and a part per item and a part per interest, all of one dimension.

    Raises ContentsError naming the field.
    """
    graph = contents.graph
    if graph is None:
        return
    check_vectors("graph.item_vectors", graph.item_vectors, rows=contents.num_items)
    dim = graph.item_vectors.shape[1]
    check_vectors("graph.item_parts", graph.item_parts, rows=contents.num_items, dim=dim)
    check_vectors("graph.interest_parts", graph.interest_parts, rows=len(graph.interests), dim=dim)
    for i, name in enumerate(graph.interests):
        clean = bool(name) and clean_text(name) == name
        require(clean, f"graph.interests[{i}]", repr(name[:80]), "a name that is clean and not empty")


def check_held_interests(name: str, record: records_pb2.UserRecord, contents: SnapshotContents) -> None:
    """Check one user's held interests. Raises ContentsError naming the user and the field."""
    held = list(record.held_interests)
    num_interests = 0 if contents.graph is None else len(contents.graph.interests)
    require(len(held) <= MAX_HELD, f"{name}.held_interests", f"{len(held)} interests", f"at most {MAX_HELD}")
    require(len(set(held)) == len(held), f"{name}.held_interests", held, "each interest once")
    require(max(held, default=-1) < num_interests, f"{name}.held_interests", held, f"below {num_interests}")
