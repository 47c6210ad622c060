"""`serendip graph`: what a user may want and what the user holds are told apart."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pytest

from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.interests.graph import GraphNode, Hop, UserGraph, graph_of
from serendipity.offline.interests.graph_table import write_graphs
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.tools import graph as graph_tool
from serendipity.v1 import records_pb2
from tests.fixtures.small_host import NUM_DAYS, START, write_small_host

NUM_USERS, NUM_ITEMS = 6, 24
HYPONYM, SEARCH = records_pb2.RELATION_HYPONYM, records_pb2.SEED_KIND_SEARCH
OOLONG = Hop(SEARCH, "green tea", "hot drinks", GraphNode("", "latent interest", "oolong", 7), HYPONYM, 0.9, "one")
ROULETTE = Hop(
    SEARCH,
    "green tea",
    "hot drinks",
    GraphNode("", "latent interest", "roulette", dropped="ungrounded"),
    HYPONYM,
    0.0,
    "one",
)
GRAPH = graph_of("u0000", "llm", 5, [OOLONG, ROULETTE])


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """u0000 may want something and holds both interests, u0001 holds one, and of u0002 nothing is known."""
    write_small_host(tmp_path / "host", num_users=NUM_USERS, num_items=NUM_ITEMS)
    build_logs(tmp_path / "host", tmp_path / "logs", LogsConfig(novelty_level=1), now=START + NUM_DAYS * 86_400)
    (tmp_path / "interests").mkdir()
    write_graphs(tmp_path / "interests", [GRAPH])
    (tmp_path / "graph").mkdir()
    held = np.full((NUM_USERS, 5), -1, np.int32)
    held[0, :2], held[1, 0] = (1, 0), 1
    vectors = np.zeros((NUM_ITEMS, 2), np.float32)
    items = (np.arange(NUM_ITEMS, dtype=np.int32) % 2)[:, None]
    ServedGraph(vectors, vectors, vectors[:2], ("folk [music]", "home baking"), held, items).write(tmp_path / "graph")
    return tmp_path


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    graph_tool.add_arguments(parser)
    return graph_tool.run(parser.parse_args(arguments))


def test_what_is_held_is_shown_apart_from_what_may_be_wanted(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("show", "u0000", "--build", str(build)) == 0
    may_want, holds = capsys.readouterr().out.split("u0000 holds")
    assert may_want.startswith("u0000 may want (llm)")
    assert "search: green tea" in may_want
    assert "roulette (dropped: ungrounded)" in may_want
    assert "baking" not in may_want
    assert holds.index("home baking") < holds.index("folk [music]")
    assert "oolong" not in holds


def test_either_alone_is_shown(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("show", "u0001", "--build", str(build)) == 0
    shown = capsys.readouterr().out
    assert "u0001 holds" in shown
    assert "may want" not in shown
    (build / "graph").rename(build / "elsewhere")
    assert main("show", "u0000", "--build", str(build)) == 0
    shown = capsys.readouterr().out
    assert "may want" in shown
    assert "holds" not in shown


def test_a_user_of_whom_nothing_is_known_is_said_so(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("show", "u0002", "--build", str(build)) == 1
    assert "found no graph of user 'u0002'" in capsys.readouterr().err


def test_interests_are_listed_with_holders(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("interests", "--build", str(build)) == 0
    shown = capsys.readouterr().out
    assert shown.index("home baking") < shown.index("folk [music]")
    assert "Thing" in shown
    (build / "graph" / "vectors.npz").unlink()
    assert main("interests", "--build", str(build)) == 1
    assert "expected vectors.npz and interests.json" in capsys.readouterr().err


def test_a_users_graph_and_the_whole_graph_are_exported(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = build / "out.json"
    assert main("export", "u0000", "--build", str(build), "--out", str(out)) == 0
    assert UserGraph.from_fields(json.loads(out.read_bytes())) == GRAPH
    assert main("export", "--build", str(build)) == 0
    exported = json.loads(capsys.readouterr().out)
    assert sum(edge["kind"] == "holds" for edge in exported["edges"]) == 3
    assert {node["kind"] for node in exported["nodes"]} >= {"user", "item", "category", "interest"}


@pytest.mark.parametrize("cut", [0, 100])
def test_vectors_that_are_cut_off_are_said_in_a_line(build: Path, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    path = build / "graph" / "vectors.npz"
    path.write_bytes(path.read_bytes()[:cut])
    assert main("interests", "--build", str(build)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected vectors.npz" in said


def test_an_export_replaces_nothing_but_a_file(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, why in ((build / "graph", "expected a file's name"), (build / "none" / "out.json", "No such file")):
        assert main("export", "--build", str(build), "--out", str(out)) == 1
        assert why in capsys.readouterr().err
    pipe = build / "pipe"
    os.mkfifo(pipe)
    assert main("export", "--build", str(build), "--out", str(pipe)) == 1
    assert pipe.is_fifo()


def test_a_graph_of_another_version_is_to_be_built_anew(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build / "graph" / "vectors.npz"
    with np.load(path) as stored:
        older = {name: stored[name] for name in stored.files if name != "item_interests"}
    np.savez(path, **older)
    assert main("show", "u0000", "--build", str(build)) == 1
    said = capsys.readouterr().err
    assert "vectors.npz: found arrays held, " in said
    assert "build it anew" in said
