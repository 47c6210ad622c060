"""Show or export a build's graphs: what a user may want and why, what users hold, and the graph of all interests.

serendip graph interests --build var/complete-journey
serendip graph show 718 --build var/complete-journey
serendip graph export --build var/complete-journey --out graph.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from serendipity.layout import write_atomically
from serendipity.offline.errors import BuilderError
from serendipity.offline.graph.described_graph import DescribedGraph
from serendipity.offline.interests.graph import GraphError, GraphNode, UserGraph
from serendipity.offline.interests.graph_table import read_graph
from serendipity.tools.arguments import add_build
from serendipity.tools.recall import result_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `serendip graph interests`, `serendip graph show USER` and `serendip graph export [USER]`."""
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("interests", "list the interests that users hold, with the items that tell their holders apart"),
        ("show", "print what a user may want, as a tree, and what the user holds"),
        ("export", "write the graph of what a user may want, or of all users and interests, as JSON"),
    ):
        command = commands.add_parser(name, help=text)
        if name == "show":
            command.add_argument("user", help="user id")
        add_build(command, default="var/complete-journey")
        if name == "export":
            command.add_argument("user", nargs="?", help="user id (default: the graph of everybody, with all clicks)")
            command.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: standard output)")


def run(args: argparse.Namespace) -> int:
    """Show or export; returns 1 when there is no such graph."""
    try:
        if args.command == "interests":
            result_console().print(_interests(DescribedGraph.read(args.build)))
        elif args.command == "show":
            _show(args.build, args.user)
        else:
            _export(args.build, args.user, args.out)
        # What is still buffered fails here, where it is told in one line.
        sys.stdout.flush()
    except (GraphError, BuilderError, OSError) as error:
        print(f"serendip graph: {error}", file=sys.stderr)
        return 1
    return 0


def _interests(graph: DescribedGraph) -> Table:
    table = Table("interest", "holders", "most telling items")
    for interest in graph.interests():
        table.add_row(escape(interest.name), str(interest.holders), escape("; ".join(interest.items)))
    return table


def _show(build: Path, user_id: str) -> None:
    held = DescribedGraph.read(build).held_by(user_id) if (build / "graph").is_dir() else []
    try:
        trees = [tree_of(read_graph(build / "interests", user_id))]
    except GraphError:
        # Of whom nothing else is known, something may be held.
        if not held:
            raise
        trees = []
    if held:
        trees.append(Tree(escape(f"{user_id} holds")))
        for name in held:
            trees[-1].add(escape(name))
    for tree in trees:
        Console().print(tree)


def _export(build: Path, user_id: str | None, out: Path | None) -> None:
    graph = read_graph(build / "interests", user_id) if user_id is not None else DescribedGraph.read(build)
    text = graph.to_json()
    if out:
        # A rename would put a file in the place of a device or a directory.
        if out.exists() and not out.is_file():
            raise GraphError(f"{out}: found something that is no file, expected a file's name")
        write_atomically(out, text.encode("utf-8"))
    else:
        sys.stdout.write(text)


def tree_of(graph: UserGraph) -> Tree:
    """Draw a graph from what is known down to the interests; those that were dropped with the reason."""
    nodes = {node.key: node for node in graph.nodes}
    tree = Tree(escape(f"{graph.user_id} may want ({graph.reasoner})"))
    for seed in (node for node in graph.nodes if node.level == 1):
        branch = tree.add(escape(f"{seed.kind}: {seed.text}" if seed.text else seed.kind))
        for up in (edge for edge in graph.edges if edge.source == seed.key):
            demand = branch.add(escape(nodes[up.target].text))
            for down in (edge for edge in graph.edges if edge.source == up.target):
                said = f"{down.relation}, {down.score:.2f}, {', '.join(down.agents)}"
                demand.add(escape(f"{_interest(nodes[down.target])}  [{said}]"))
    return tree


def _interest(node: GraphNode) -> str:
    if node.dropped:
        return f"{node.text} (dropped: {node.dropped})"
    return f"{node.text} → #{node.interest_node} by {node.grounded_by}"
