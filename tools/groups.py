"""Show the groups of users a build made: one group's profile and members, or how good the groups are.

serendip groups show 7 --build var/complete-journey
serendip groups report --build var/complete-journey
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import duckdb
from google.protobuf import json_format
from rich.console import Console
from rich.markup import escape

from serendipity.groups.model import GroupModelError, read_group_spec
from serendipity.offline.groups.directory import ASSIGNMENTS, read_groups, read_report
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.tools.arguments import add_build
from serendipity.v1 import records_pb2

_MOST_USERS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `serendip groups show GROUP` and `serendip groups report`."""
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("show", "print a group's profile, what sets it apart and some of its users"),
        ("report", "print how users are grouped, codebook use, collisions, reconstruction and sizes, as JSON"),
    ):
        command = commands.add_parser(name, help=text)
        if name == "show":
            command.add_argument("group", type=int, help="group id; 0 is the default group")
        add_build(command, default="var/complete-journey")


def run(args: argparse.Namespace) -> int:
    """Show or report; returns 1 when there is no such group or no groups were built."""
    console = Console()
    groups = args.build / "groups"
    try:
        spec = read_group_spec(groups)
        if args.command == "report":
            console.print_json(json_format.MessageToJson(spec, preserving_proto_field_name=True))
            console.print_json(data=asdict(read_report(groups)))
        elif not 0 <= args.group <= spec.num_groups:
            print(f"serendip groups: group {args.group}: expected 0 to {spec.num_groups}", file=sys.stderr)
            return 1
        else:
            group = read_groups(groups)[args.group]
            _print_group(console, group, Catalogue.read(args.build).categories, users_of(groups, args.group))
    except (GroupModelError, LogsError) as error:
        print(f"serendip groups: {error}", file=sys.stderr)
        return 1
    return 0


def users_of(groups: Path, group_id: int) -> list[tuple[str, list[int]]]:
    """List the first users of a group with their CSIDs, by user id. Raises GroupModelError."""
    path = groups / ASSIGNMENTS
    query = "SELECT user_id, csid FROM read_parquet(?) WHERE group_id = ? ORDER BY user_id LIMIT ?"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(query, [str(path), group_id, _MOST_USERS]).fetchall()
    except duckdb.Error as error:
        raise GroupModelError(f"{path}: cannot be read ({error}); expected users' groups: build them anew") from error
    return [(user_id, list(csid)) for user_id, csid in rows]


def _print_group(
    console: Console, group: records_pb2.GroupRecord, categories: list[str], users: list[tuple[str, list[int]]]
) -> None:
    name = "default group" if group.group_id == 0 else f"group {group.group_id}"
    apart = ", ".join(categories[number - 1] for number in group.categories)
    console.print(f"{name}: {group.users:,} users", highlight=False)
    console.print(f"profile: {escape(group.profile)}", highlight=False)
    console.print(f"categories: {escape(apart)}", highlight=False)
    for user_id, csid in users:
        console.print(f"  {escape(user_id)}  {'-'.join(map(str, csid)) or 'no CSID'}", highlight=False)
    if group.users > len(users):
        console.print(f"  … and {group.users - len(users):,} more", highlight=False)
