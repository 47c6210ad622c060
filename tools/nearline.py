"""Show the near-line queues, or retry what failed.

    serendip nearline status --build var/complete-journey
    serendip nearline retry 718 1146 --build var/complete-journey        (or --all)
    serendip nearline retry --all --kind lists --build var/complete-journey

There is a queue for users' interests and one for novel-category lists; --kind chooses one.
Neither needs a service, nor disturbs one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
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
from serendipity.layout import user_key
from serendipity.tools.arguments import add_build, identifier
from serendipity.tools.options import add_setting_options, read_settings
from serendipity.tools.recall import result_console

_SHOWN = 20
"""Parked entries listed of each kind."""

_NOUNS = {Kind.INTERESTS: "users with interests", Kind.LISTS: "lists"}

_ACTIONS = {
    "status": "Show the queues and what is parked.",
    "retry": "Retry what failed, at once.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip nearline`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = {name: actions.add_parser(name, help=text, description=text) for name, text in _ACTIONS.items()}
    added["retry"].add_argument("users", type=identifier, nargs="*", metavar="USER", help="users to be tried again")
    added["retry"].add_argument("--all", action="store_true", help="everything that failed, parked or not")
    kinds = [str(kind) for kind in Kind]
    for action in added.values():
        action.add_argument("--kind", action="append", choices=kinds, help="only of this kind; repeatable")
        add_build(action, "build directory: --state is state/ in it")
        add_setting_options(action, ServerSettings, ["state"])


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it cannot be done, 2 when it is not said for whom."""
    kinds = [kind for kind in Kind if not args.kind or str(kind) in args.kind]
    try:
        given = {"state": args.build / "state"} if args.build else {}
        # No snapshot is looked at.
        server = read_settings(ServerSettings, args, snapshots=Path(), **given)
        if not server.nearline_path.is_dir():
            print(f"serendip nearline {args.action}: {server.nearline_path}: no near-line store there", file=sys.stderr)
            return 1
        with open_nearline(server) as store:
            if args.action == "status":
                _print_status(server, store, kinds)
                return 0
            return _retry(store, kinds, args.users, everything=args.all)
    except (ChannelError, OSError) as error:
        print(f"serendip nearline {args.action}: {error}", file=sys.stderr)
        return 1


def _retry(store: NearlineStore, kinds: Sequence[Kind], users: Sequence[str], *, everything: bool) -> int:
    if bool(users) == everything:
        print("serendip nearline retry: found neither or both, expected USER … or --all", file=sys.stderr)
        return 2
    if everything:
        retried = {kind: store.queue(kind).retry() for kind in kinds}
        said = ", ".join(f"{kind} {count}" for kind, count in retried.items())
        print(f"to be tried at once: {said}")
        return 0
    strangers = [user for user in users if not store.queue(Kind.INTERESTS).retry(user_key(user))]
    print(f"to be tried at once: {len(users) - len(strangers)} users")
    if strangers:
        print(f"serendip nearline retry: not queued: {', '.join(strangers)}", file=sys.stderr)
    return 1 if strangers else 0


def _print_status(server: ServerSettings, store: NearlineStore, kinds: Sequence[Kind]) -> None:
    out, now = result_console(), time.time()
    with exclusive(server) as free:
        out.print("process: none is running" if free else "process: one is running")
    for kind in kinds:
        counted = census(store, kind)
        out.print(f"[bold]{kind}[/bold]: {counted.records:,} {_NOUNS[kind]}", highlight=False)
        out.print(
            f"  queue: {counted.ready:,} ready, {counted.delayed:,} to be tried later, {counted.parked:,} parked; "
            f"the next has waited {_age(now - counted.next_since) if counted.next_since else '-'}",
            highlight=False,
        )
        totals = ", ".join(f"{name} {count:,}" for name, count in counted.totals.items())
        out.print(f"  since the beginning: {totals or '-'}", highlight=False)
        if counted.parked:
            _print_parked(out, store, kind, counted.parked, now)


def _print_parked(out: Console, store: NearlineStore, kind: Kind, parked: int, now: float) -> None:
    table = Table("parked", "cause", "attempts", "since", "last error", box=None, pad_edge=False)
    for entry in store.queue(kind).parked(_SHOWN):
        since = _age(now - entry.not_before)
        name = escape(subject_name(entry))
        table.add_row(name, cause_name(entry.cause), str(entry.attempts), since, escape(entry.last_error))
    out.print(table)
    if parked > _SHOWN:
        out.print(f"and {parked - _SHOWN:,} more")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
