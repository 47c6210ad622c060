"""Show the near-line queues, retry what failed, or work on them until they are empty.

    serendip nearline status --build var/complete-journey
    serendip nearline retry 718 1146 --build var/complete-journey        (or --all)
    serendip nearline retry --all --kind lists --build var/complete-journey
    serendip nearline drain --build var/complete-journey --triton-url 127.0.0.1:8000

There is a queue for users' interests, one for users' groups and one for novel-category lists; --kind chooses some.
`status` and `retry` need no service and disturb none. `drain` waits for a running service to empty the queues, and does
the work itself where none is running. What failed waits for its next try and what is parked for
`retry`: neither is drained.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serendipity.channel.errors import ChannelError, SnapshotUnavailable
from serendipity.channel.nearline.drain import Drained, drain
from serendipity.channel.nearline.housekeeping import Census, cause_name, census
from serendipity.channel.nearline.process import exclusive, opened_nearline
from serendipity.channel.nearline.store import NearlineStore, open_nearline
from serendipity.channel.nearline.subject import USER_KINDS, Kind, subject_name
from serendipity.channel.nearline.telemetry import NearlineStatus, read_status
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.layout import user_key
from serendipity.tools.arguments import add_build, identifier
from serendipity.tools.options import add_setting_options, read_settings
from serendipity.tools.recall import result_console

_SHOWN = 20
"""Parked entries listed of each kind."""

_NOUNS = {Kind.INTERESTS: "users with interests", Kind.GROUPS: "users with a group", Kind.LISTS: "lists"}

_ACTIONS = {
    "status": "Show the process, the queues and what is parked.",
    "retry": "Retry what failed, at once.",
    "drain": "Work on the queues until they are empty.",
}

_WORK = (
    "snapshots", "state", "feedback_map_bytes", "nearline_map_bytes", "nearline_triton_url", "nearline_batch",
    "nearline_timeout_seconds",
)  # fmt: skip
"""Settings of the service that matter to a command that does near-line work itself, and then ends."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip nearline`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = {name: actions.add_parser(name, help=text, description=text) for name, text in _ACTIONS.items()}
    added["retry"].add_argument("users", type=identifier, nargs="*", metavar="USER", help="users to be tried again")
    added["retry"].add_argument("--all", action="store_true", help="everything that failed, parked or not")
    kinds = [str(kind) for kind in Kind]
    for name, action in added.items():
        action.add_argument("--kind", action="append", choices=kinds, help="only of this kind; repeatable")
        if name == "drain":
            add_work_options(action)
        else:
            add_build(action, "build directory: --state is state/ in it")
            add_setting_options(action, ServerSettings, ["state"])


def add_work_options(parser: argparse.ArgumentParser, server: Sequence[str] = (), channel: Sequence[str] = ()) -> None:
    """Declare where the service's directories are, and the settings of its near-line work; server, channel: others."""
    add_build(parser, "build directory: --snapshots and --state are folders in it")
    add_setting_options(parser, ServerSettings, [*_WORK, *server])
    add_setting_options(parser, ChannelSettings, ["triton_url", "clock", *channel])


def work_settings(args: argparse.Namespace) -> tuple[ServerSettings, ChannelSettings]:
    """Read the settings of near-line work.

    Raises SystemExit naming what is wrong, and SnapshotUnavailable where there is no directory of snapshots.
    """
    given = {"snapshots": args.build / "snapshots", "state": args.build / "state"} if args.build else {}
    server: ServerSettings = read_settings(ServerSettings, args, **given)
    if not server.snapshots.is_dir():
        raise SnapshotUnavailable(f"{server.snapshots}: no snapshots there")
    return server, read_settings(ChannelSettings, args)


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it cannot be done, 2 when it is not said for whom."""
    kinds = [kind for kind in Kind if not args.kind or str(kind) in args.kind]
    try:
        if args.action == "drain":
            return _drain(*work_settings(args), kinds)
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


def print_drained(console: Console, drained: Drained) -> None:
    """Say what was done, and how fast."""
    seconds = max(drained.seconds, 1e-9)
    totals = drained.totals[Kind.INTERESTS]
    refreshed, tokens = totals.get("completed", 0), totals.get("completion_tokens", 0)
    console.print(
        f"refreshed {refreshed:,} users in {drained.seconds:.1f} s: {refreshed / seconds:.3g} users/s, "
        f"{tokens / seconds:,.0f} new tokens/s, {totals.get('prompt_tokens', 0) / seconds:,.0f} prompt tokens/s",
        highlight=False,
    )
    for kind, done in ((Kind.GROUPS, "assigned groups to {:,} users"), (Kind.LISTS, "filled {:,} lists")):
        if completed := drained.totals[kind].get("completed"):
            console.print(done.format(completed), highlight=False)
    others = {"failed": "to be tried later", "parked": "given up", "unneeded": "nothing to do or nothing known"}
    for kind, counts in drained.totals.items():
        said = [f"{counts[name]:,} {name} ({meaning})" for name, meaning in others.items() if counts.get(name)]
        if kind is Kind.INTERESTS and drained.refused:
            said.append(f"{drained.refused:,} refused (the queue is full; run again)")
        if said:
            console.print(f"{kind}: {'; '.join(said)}", highlight=False)


def _drain(server: ServerSettings, channel: ChannelSettings, kinds: Sequence[Kind]) -> int:
    async def work() -> tuple[Drained, dict[Kind, Census]]:
        with exclusive(server) as works:
            async with opened_nearline(server, channel) as nearline:
                out.print("works the queues" if works else "waits for the running service to work the queues")
                drained = await drain(nearline, works=works, kinds=kinds)
                return drained, {kind: await asyncio.to_thread(census, nearline.store, kind) for kind in kinds}

    out = result_console()
    drained, left = asyncio.run(work())
    print_drained(out, drained)
    for kind, counted in left.items():
        out.print(
            f"{kind} left: {counted.ready:,} ready, {counted.delayed:,} to be tried later, {counted.parked:,} parked",
            highlight=False,
        )
    return 0


def _retry(store: NearlineStore, kinds: Sequence[Kind], users: Sequence[str], *, everything: bool) -> int:
    if bool(users) == everything:
        print("serendip nearline retry: found neither or both, expected USER … or --all", file=sys.stderr)
        return 2
    if everything:
        retried = {kind: store.queue(kind).retry() for kind in kinds}
        said = ", ".join(f"{kind} {count}" for kind, count in retried.items())
        print(f"to be tried at once: {said}")
        return 0
    user_kinds = [kind for kind in kinds if kind in USER_KINDS]
    strangers = [user for user in users if not sum(store.queue(kind).retry(user_key(user)) for kind in user_kinds)]
    print(f"to be tried at once: {len(users) - len(strangers)} users")
    if strangers:
        print(f"serendip nearline retry: not queued: {', '.join(strangers)}", file=sys.stderr)
    return 1 if strangers else 0


def _print_status(server: ServerSettings, store: NearlineStore, kinds: Sequence[Kind]) -> None:
    out, now = result_console(), time.time()
    with exclusive(server) as free:
        status = None if free else read_status(server.nearline_status_path)
        out.print(_process(status, free=free))
    for kind in kinds:
        counted = census(store, kind)
        out.print(f"[bold]{kind}[/bold]: {counted.records:,} {_NOUNS[kind]}", highlight=False)
        if status is not None:
            out.print(f"  {_work(status, kind, now)}", highlight=False)
        out.print(
            f"  queue: {counted.ready:,} ready, {counted.delayed:,} to be tried later, {counted.parked:,} parked; "
            f"oldest {_age(now - counted.oldest) if counted.oldest else '-'}",
            highlight=False,
        )
        causes = ", ".join(f"{name} {count:,}" for name, count in sorted(counted.by_cause.items()))
        out.print(f"  by cause: {causes or '-'}", highlight=False)
        if kind is Kind.LISTS:
            out.print(f"  asked for too seldom so far: {counted.aside:,}", highlight=False)
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


def _process(status: NearlineStatus | None, *, free: bool) -> str:
    if free:
        return "process: none is running"
    if status is None:
        return "process: one is running without a status (`serendip nearline drain` writes none)"
    return f"process: pid {status.pid}, snapshot {status.snapshot or '-'}"


def _work(status: NearlineStatus, kind: Kind, now: float) -> str:
    done = f"last batch {_age(now - status.done_at[kind])} ago" if kind in status.done_at else "no batch yet"
    error = f"; cannot work: {escape(status.errors[kind])}" if kind in status.errors else ""
    return f"model {status.models.get(kind) or 'none: the snapshot names none'}, {done}{error}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
