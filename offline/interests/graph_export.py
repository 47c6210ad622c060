"""User graphs for other programs: JSON, and GraphML for Gephi, Cytoscape, Neo4j and networkx."""

from __future__ import annotations

import io
import re
from typing import Literal

import networkx

from serendipity.offline.interests.graph import UserGraph

Format = Literal["json", "graphml"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters XML 1.0 has no way to write; ids and catalogue names are the host's."""


def export_graph(graph: UserGraph, kind: Format) -> str:
    """Write a graph as text."""
    if kind == "json":
        return graph.to_json() + "\n"
    written = io.BytesIO()
    networkx.write_graphml_xml(to_networkx(graph), written, named_key_ids=True)
    return written.getvalue().decode("utf-8")


def to_networkx(graph: UserGraph) -> networkx.DiGraph:
    """Make a directed graph whose nodes and edges carry the fields as attributes; agents joined by commas."""
    drawn = networkx.DiGraph(user_id=_xml(graph.user_id), reasoner=graph.reasoner, generated_at=graph.generated_at)
    for node in graph.nodes:
        drawn.add_node(
            _xml(node.key),
            level=node.level,
            kind=node.kind,
            text=_xml(node.text),
            # GraphML has no null: −1 stands for an interest that grounds in no node.
            interest_node=-1 if node.interest_node is None else node.interest_node,
            grounded_by=node.grounded_by,
            similarity=node.similarity,
            dropped=node.dropped,
        )
    for edge in graph.edges:
        drawn.add_edge(
            _xml(edge.source), _xml(edge.target), relation=edge.relation, score=edge.score, agents=",".join(edge.agents)
        )
    return drawn


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
