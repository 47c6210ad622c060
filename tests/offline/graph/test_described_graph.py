"""What people see of a build's interest graph, of a small host."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from serendipity.offline.graph.builder import build_graph
from serendipity.offline.graph.choice import GraphBuildConfig
from serendipity.offline.graph.described_graph import DescribedGraph
from serendipity.offline.graph.held_interests import HeldConfig, infer_held_interests
from serendipity.offline.graph.host_graph import RELATIONS
from serendipity.offline.graph.served_graph import NONE_HELD, VECTORS, ServedGraph, ServedGraphError
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.small_host import NUM_DAYS, START, write_small_host
from tests.offline.graph.small_themes import catalogue, histories

CONFIG = GraphBuildConfig.model_validate({"held": {"num_clusters": [4]}, "model": {"dim": 8}})


@pytest.fixture(scope="module")
def graph() -> DescribedGraph:
    made, shop = histories(), catalogue()
    held = infer_held_interests(made, shop, HeldConfig(num_clusters=(8, 16)))
    vectors = np.zeros((len(shop), 2), np.float32)
    interests = np.zeros((len(held.names), 2), np.float32)
    return DescribedGraph(made, shop, ServedGraph(vectors, vectors, interests, held.names, held.held, held.items))


def test_a_build_is_read(tmp_path: Path) -> None:
    build = small_build(tmp_path)
    read = DescribedGraph.read(build)
    assert len(read.interests()) == 4
    assert read.held_by(read.histories.user_ids[0]) == []


def small_build(build: Path) -> Path:
    write_small_host(build / "host", num_users=40, num_items=60)
    build_logs(build / "host", build / "logs", LogsConfig(novelty_level=1), now=START + NUM_DAYS * 86_400)
    (build / "graph").mkdir()
    build_graph(build / "logs", build / "graph", CONFIG)
    return build


def test_interests_are_listed_most_held_first_with_items_that_speak_for_them(graph: DescribedGraph) -> None:
    described = graph.interests()
    assert {interest.name for interest in described} == set(graph.served.interests)
    holders = [interest.holders for interest in described]
    assert holders == sorted(holders, reverse=True)
    assert sum(holders) == (graph.served.held != NONE_HELD).sum() > 0
    for interest in described:
        number = graph.served.interests.index(interest.name)
        rows = np.flatnonzero((graph.served.item_interests == number).any(axis=1))
        assert set(interest.items) <= {graph.catalogue.titles[row] for row in rows}
        assert bool(interest.items) == bool(interest.holders)


def test_items_that_only_holders_click_come_first(graph: DescribedGraph) -> None:
    best = next(interest for interest in graph.interests() if interest.holders)
    number = graph.served.interests.index(best.name)
    holders = (graph.served.held == number).any(axis=1)
    row = graph.catalogue.titles.index(best.items[0])
    clickers = np.unique(graph.histories.users[graph.histories.items == row + 1])
    assert holders[clickers].mean() > holders.mean()


def test_a_user_holds_what_the_graph_says_and_a_stranger_nothing(graph: DescribedGraph) -> None:
    for user, user_id in enumerate(graph.histories.user_ids):
        assert graph.held_by(user_id) == [graph.served.interests[i] for i in graph.served.held_by(user)]
    assert graph.held_by("nobody") == []


def test_the_export_has_every_node_and_typed_edges_between_the_right_kinds(graph: DescribedGraph) -> None:
    exported = json.loads(graph.to_json())
    kinds = {node["id"]: node["kind"] for node in exported["nodes"]}
    assert list(kinds) == list(range(len(kinds)))
    ends = {
        "clicks": ({"user"}, {"item"}),
        "holds": ({"user"}, {"interest"}),
        "knowledge": ({"item"}, {"category"}),
    }
    found = {kind: [edge for edge in exported["edges"] if edge["kind"] == kind] for kind in ends}
    assert sum(map(len, found.values())) == len(exported["edges"])
    for kind, (sources, targets) in ends.items():
        assert {kinds[edge["source"]] for edge in found[kind]} <= sources
        assert {kinds[edge["target"]] for edge in found[kind]} <= targets
        assert found[kind]
    assert {edge["relation"] for edge in found["knowledge"]} <= set(RELATIONS)
    names = {node["id"]: node["name"] for node in exported["nodes"]}
    held = {(names[edge["source"]], names[edge["target"]]) for edge in found["holds"]}
    assert held == {(user, name) for user in graph.histories.user_ids for name in graph.held_by(user)}


def test_a_graph_of_other_logs_is_refused(tmp_path: Path) -> None:
    vectors = small_build(tmp_path) / "graph" / VECTORS
    stored = dict(np.load(vectors))
    np.savez(vectors, **{**stored, "held": stored["held"][:3]})
    with pytest.raises(ServedGraphError, match="found 3 users and 60 items, expected 40 and 60"):
        DescribedGraph.read(tmp_path)
