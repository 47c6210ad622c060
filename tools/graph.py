"""Show a user's knowledge graph (search or behaviour → core demand → latent interest) or export it (JSON, GraphML)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from serendipity.layout import write_atomically
from serendipity.offline.interests.graph import GraphError, GraphNode, UserGraph
from serendipity.offline.interests.graph_export import Format, export_graph
from serendipity.offline.interests.graph_table import read_graph
from serendipity.tools.arguments import add_build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `serendip graph show USER` and `serendip graph export USER`."""
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("show", "print the graph as a tree"), ("export", "write the graph for other programs")):
        command = commands.add_parser(name, help=text)
        command.add_argument("user", help="user id")
        add_build(command, default="var/complete-journey")
        if name == "export":
            command.add_argument("--format", choices=get_args(Format), default="json", help="format")
            command.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: standard output)")


def run(args: argparse.Namespace) -> int:
    """Show or export; returns 1 when there is no such graph."""
    try:
        graph = read_graph(args.build / "interests", args.user)
    except GraphError as error:
        print(f"serendip graph: {error}", file=sys.stderr)
        return 1
    if args.command == "show":
        Console().print(tree_of(graph))
        return 0
    text = export_graph(graph, args.format)
    if args.out:
        write_atomically(args.out, text.encode("utf-8"))
    else:
        sys.stdout.write(text)
    return 0


def tree_of(graph: UserGraph) -> Tree:
    """Draw a graph from what is known down to the interests; those that were dropped with the reason."""
    nodes = {node.key: node for node in graph.nodes}
    tree = Tree(escape(f"{graph.user_id} ({graph.reasoner})"))
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
