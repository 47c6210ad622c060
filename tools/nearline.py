"""Show the near-line queues, and what failed.

    serendip nearline status --build var/complete-journey

There is a queue for users' interests and one for novel-category lists. No service is needed, nor disturbed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serendipity.channel.errors import ChannelError
from serendipity.channel.nearline.housekeeping import cause_name, census
from serendipity.channel.nearline.process import exclusive
from serendipity.channel.nearline.store import NearlineStore, open_nearline
from serendipity.channel.nearline.subject import Kind, subject_name
from serendipity.channel.service.settings import ServerSettings
from serendipity.tools.arguments import add_build
from serendipity.tools.recall import result_console

_SHOWN = 20
"""Failed entries listed of each kind."""

_NOUNS = {Kind.INTERESTS: "users with interests", Kind.LISTS: "lists"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip nearline`."""
    parser.add_argument("action", choices=("status",))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--state", type=Path, metavar="DIR", help="what the host keeps; the service's setting `state`")
    add_build(where, "build directory: state/ in it")


def run(args: argparse.Namespace) -> int:
    """Show them; returns 1 when they cannot be read."""
    try:
        # No snapshot is looked at.
        server = ServerSettings(snapshots=Path(), state=args.state or args.build / "state")
        if not server.nearline_path.is_dir():
            print(f"serendip nearline: {server.nearline_path}: no near-line store there", file=sys.stderr)
            return 1
        with open_nearline(server) as store:
            _print_status(server, store)
    except (ChannelError, OSError) as error:
        print(f"serendip nearline: {error}", file=sys.stderr)
        return 1
    return 0


def _print_status(server: ServerSettings, store: NearlineStore) -> None:
    out, now = result_console(), time.time()
    with exclusive(server) as free:
        out.print("process: none is running" if free else "process: one is running")
    for kind in Kind:
        counted = census(store, kind)
        out.print(f"[bold]{kind}[/bold]: {counted.records:,} {_NOUNS[kind]}", highlight=False)
        out.print(
            f"  queue: {counted.ready:,} ready, {counted.delayed:,} failed, to be tried later; "
            f"the next has waited {_age(now - counted.next_since) if counted.next_since else '-'}",
            highlight=False,
        )
        totals = ", ".join(f"{name} {count:,}" for name, count in counted.totals.items())
        out.print(f"  since the beginning: {totals or '-'}", highlight=False)
        if counted.delayed:
            _print_failed(out, store, kind, counted.delayed, now)


def _print_failed(out: Console, store: NearlineStore, kind: Kind, failed: int, now: float) -> None:
    table = Table("failed", "cause", "attempts", "again in", "last error", box=None, pad_edge=False)
    for entry in store.queue(kind).delayed(_SHOWN):
        again = _age(entry.not_before - now)
        name = escape(subject_name(entry))
        table.add_row(name, cause_name(entry.cause), str(entry.attempts), again, escape(entry.last_error))
    out.print(table)
    if failed > _SHOWN:
        out.print(f"and {failed - _SHOWN:,} more")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
