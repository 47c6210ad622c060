"""A user's graph joins what agents said, keeps why interests were dropped, and survives every way it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.text import clean_text
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.graph import (
    GraphEdge,
    GraphError,
    GraphNode,
    Hop,
    UserGraph,
    graph_of,
    graph_of_interests,
)
from serendipity.offline.interests.graph_table import GRAPHS, read_graph, write_graphs
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2
from tests.fixtures.hostile_texts import any_text

SEARCH, CATEGORY = records_pb2.SEED_KIND_SEARCH, records_pb2.SEED_KIND_CATEGORY
DOWN, BESIDE = records_pb2.RELATION_HYPONYM, records_pb2.RELATION_CO_HYPONYM


def interest(text: str, node: int | None, dropped: str = "") -> GraphNode:
    return GraphNode("", "latent interest", text, node, "exact" if node is not None else "", 0.9, dropped)


TEA = Hop(SEARCH, "green tea", "hot drinks", interest("oolong", 7), DOWN, 0.9, "agent 1")
SAME = Hop(SEARCH, "green tea", "hot drinks", interest("Oolong tea", 7, "known"), DOWN, 0.95, "agent 2")
MUGS = Hop(CATEGORY, "Tea", "hot drinks", interest("mugs", 3), BESIDE, 0.6, "agent 2")
CASINO = Hop(SEARCH, "green tea", "luck", interest("roulette", None, "ungrounded"), DOWN, 0.0, "agent 2")

clean = any_text.map(clean_text)
hops = st.builds(
    Hop,
    st.sampled_from([SEARCH, CATEGORY, records_pb2.SEED_KIND_PROFILE, records_pb2.SEED_KIND_POPULATION]),
    clean,
    clean,
    st.builds(interest, clean, st.one_of(st.none(), st.integers(0, 5)), st.sampled_from(["", "known"])),
    st.sampled_from([DOWN, BESIDE]),
    st.floats(0, 1),
    st.sampled_from(["agent 1", "agent 2"]),
)
graphs = st.builds(graph_of, clean.filter(bool), st.just("llm"), st.integers(0, 2**40), st.lists(hops, max_size=8))


def test_equal_nodes_and_edges_become_one_with_every_agent_that_drew_them() -> None:
    graph = graph_of("u", "llm", 5, [SAME, TEA, MUGS, CASINO])
    assert [(node.level, node.text) for node in graph.nodes] == [
        (1, "green tea"), (2, "hot drinks"), (3, "oolong"), (1, "Tea"), (3, "mugs"), (2, "luck"), (3, "roulette"),
    ]  # fmt: skip
    oolong = next(edge for edge in graph.edges if edge.target == "3 #7")
    assert (oolong.relation, oolong.score, oolong.agents) == ("hyponym", 0.95, ("agent 2", "agent 1"))
    assert [node.text for node in graph.interests] == ["oolong", "mugs"]


def test_what_was_dropped_stays_with_its_reason() -> None:
    graph = graph_of("u", "llm", 5, [TEA, CASINO])
    assert [(node.text, node.dropped) for node in graph.nodes if node.dropped] == [("roulette", "ungrounded")]


@given(st.lists(hops, max_size=10))
def test_edges_always_climb_one_hop_and_come_down_one(some: list[Hop]) -> None:
    graph = graph_of("u", "llm", 5, some)
    levels = {node.key: node.level for node in graph.nodes}
    for edge in graph.edges:
        assert (levels[edge.source], levels[edge.target]) == ((1, 2) if edge.relation == "hypernym" else (2, 3))
        assert len(set(edge.agents)) == len(edge.agents) >= 1


@given(graphs)
def test_json_gives_back_the_same_graph(graph: UserGraph) -> None:
    assert UserGraph.from_fields(json.loads(graph.to_json())) == graph


def test_an_edge_that_skips_a_hop_is_refused() -> None:
    nodes = (GraphNode("1 s", "search", "s"), GraphNode("3 #1", "latent interest", "i", 1))
    with pytest.raises(GraphError, match=r"found levels \[1, 3\], expected \[2, 3\]"):
        UserGraph("u", "llm", 5, nodes, (GraphEdge("1 s", "3 #1", "hyponym", 0.5, ("a",)),))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (None, r"nodes\n.*expected the fields of a user graph"),
        ([{"key": "1", "kind": "dream", "text": ""}], r"nodes\.0\.kind\n.*'dream'"),
    ],
)
def test_what_is_no_graph_is_refused(nodes: object, expected: str) -> None:
    fields = {"user_id": "u", "reasoner": "r", "generated_at": 1, "edges": [], "nodes": nodes}
    with pytest.raises(GraphError, match=f"(?s){expected}"):
        UserGraph.from_fields(fields)


def test_graphs_are_stored_and_read_by_user(tmp_path: Path) -> None:
    stored = [graph_of(user, "llm", 5, hops) for user, hops in (("a", [TEA]), ("ü'\"", [TEA, MUGS, CASINO]), ("c", []))]
    write_graphs(tmp_path, stored)
    assert [read_graph(tmp_path, graph.user_id) for graph in stored[:2]] == stored[:2]
    with pytest.raises(GraphError, match="found no graph of user 'c'"):
        read_graph(tmp_path, "c")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=rf"{GRAPHS}: missing"):
        read_graph(tmp_path, "a")
    (tmp_path / GRAPHS).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(GraphError, match="cannot be read"):
        read_graph(tmp_path, "a")


def test_a_reasoner_without_graphs_has_them_drawn_from_its_paths(
    shop: Catalogue, histories_of: Callable[..., Histories]
) -> None:
    clicks = [
        (f"u{n}", item, 1_000_000 + n) for n in range(4) for item in ("espresso-1", "green-1", "drill-1")[: n + 1]
    ]
    histories = histories_of(shop, clicks, profiles={"u0": {"age": "25-34"}})
    reasoner = fit_reasoner(Taxonomy.from_catalogue(shop), histories, 2_000_000)
    users = contexts_at(histories, 2_000_000)
    for user, interests in zip(users, reasoner.reason(users, 4), strict=True):
        graph = graph_of_interests(user.user_id, reasoner.name, user.now, interests)
        assert graph.user_id == user.user_id
        assert [node.interest_node for node in graph.interests] == [i.node_id for i in interests]
        assert {agent for edge in graph.edges for agent in edge.agents} <= {"taxonomy"}
