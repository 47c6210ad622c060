"""Look at the near-line queue, let failed users be tried again, or work it until it is empty.

    serendip nearline status --build var/complete-journey
    serendip nearline retry 718 1146 --build var/complete-journey        (or --all)
    serendip nearline drain --build var/complete-journey --triton-url 127.0.0.1:8001

`status` and `retry` need no service and disturb none. `drain` waits for a running service to empty the queue, and does
the work itself where none is running. Failed users wait for their next try and parked ones for `retry`: neither is
drained.
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

from serendipity.channel.errors import ChannelError
from serendipity.channel.nearline.drain import Drained, drain
from serendipity.channel.nearline.housekeeping import Census, cause_name, census
from serendipity.channel.nearline.process import exclusive, opened_nearline
from serendipity.channel.nearline.store import NearlineStore, open_nearline
from serendipity.channel.nearline.telemetry import NearlineStatus, read_status
from serendipity.channel.server_settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.tools.options import add_setting_options, read_settings

_SHOWN = 20
"""Parked users listed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip nearline`."""
    parser.add_argument("action", choices=("status", "retry", "drain"))
    parser.add_argument("users", nargs="*", metavar="USER", help="retry: users to be tried again at once")
    parser.add_argument("--all", action="store_true", help="retry: everybody who failed, parked or not")
    add_service_options(parser)


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the service's directories are, and its settings, as `serendip serve` does."""
    parser.add_argument(
        "--build", type=Path, metavar="DIR", help="build directory: sets --snapshots and --state to folders in it"
    )
    add_setting_options(parser, ServerSettings)
    add_setting_options(parser, ChannelSettings)


def service_settings(args: argparse.Namespace) -> tuple[ServerSettings, ChannelSettings]:
    """Read the settings of the service. Raises SystemExit naming what is wrong."""
    given = {"snapshots": args.build / "snapshots", "state": args.build / "state"} if args.build else {}
    if not args.build and hasattr(args, "state"):
        # The queue can be looked at without snapshots.
        given = {"snapshots": Path(args.state).parent / "snapshots"}
    return read_settings(ServerSettings, args, **given), read_settings(ChannelSettings, args)


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it cannot be done, 2 when it is not said for whom."""
    server, channel = service_settings(args)
    try:
        if args.action == "drain":
            return _drain(server, channel)
        if not server.nearline_path.is_dir():
            print(f"serendip nearline: {server.nearline_path}: no near-line store there", file=sys.stderr)
            return 1
        with open_nearline(server) as store:
            if args.action == "status":
                _print_status(server, store)
                return 0
            return _retry(store, args.users, everybody=args.all)
    except (ChannelError, OSError) as error:
        print(f"serendip nearline {args.action}: {error}", file=sys.stderr)
        return 1


def console() -> Console:
    """A console as wide as what is written needs where there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def print_drained(console: Console, drained: Drained) -> None:
    """Say what was done, and how fast."""
    totals, seconds = drained.totals, max(drained.seconds, 1e-9)
    refreshed = totals.get("completed", 0)
    tokens = totals.get("completion_tokens", 0)
    console.print(
        f"refreshed {refreshed:,} users in {drained.seconds:.1f} s: {refreshed / seconds:.3g} users/s, "
        f"{tokens / seconds:,.0f} new tokens/s, {totals.get('prompt_tokens', 0) / seconds:,.0f} prompt tokens/s",
        highlight=False,
    )
    others = {"failed": "to be tried later", "parked": "given up", "unneeded": "nothing to do or nothing known"}
    said = [f"{totals[name]:,} {name} ({meaning})" for name, meaning in others.items() if totals.get(name)]
    if drained.refused:
        said.append(f"{drained.refused:,} refused (the queue is full; run again)")
    if said:
        console.print("; ".join(said), highlight=False)


def _drain(server: ServerSettings, channel: ChannelSettings) -> int:
    async def work() -> tuple[Drained, Census]:
        with exclusive(server) as works:
            async with opened_nearline(server, channel) as nearline:
                out.print("works the queue" if works else "waits for the running service to work the queue")
                drained = await drain(nearline, works=works)
                return drained, await asyncio.to_thread(census, nearline.store)

    out = console()
    drained, left = asyncio.run(work())
    print_drained(out, drained)
    out.print(
        f"left: {left.ready:,} ready, {left.delayed:,} to be tried later, {left.parked:,} parked", highlight=False
    )
    return 0


def _retry(store: NearlineStore, users: Sequence[str], *, everybody: bool) -> int:
    if bool(users) == everybody:
        print("serendip nearline retry: found neither or both, expected USER … or --all", file=sys.stderr)
        return 2
    strangers = [user_id for user_id in users if not store.retry(user_id)]
    retried = store.retry() if everybody else len(users) - len(strangers)
    print(f"to be tried at once: {retried} users")
    if strangers:
        print(f"serendip nearline retry: not queued: {', '.join(strangers)}", file=sys.stderr)
    return 1 if strangers else 0


def _print_status(server: ServerSettings, store: NearlineStore) -> None:
    out, counted, now = console(), census(store), time.time()
    with exclusive(server) as free:
        out.print(_process(None if free else read_status(server.nearline_status_path), free=free, now=now))
    out.print(
        f"queue: {counted.ready:,} ready, {counted.delayed:,} to be tried later, {counted.parked:,} parked; "
        f"oldest {_age(now - counted.oldest) if counted.oldest else '-'}",
        highlight=False,
    )
    causes = ", ".join(f"{name} {count:,}" for name, count in sorted(counted.by_cause.items()))
    out.print(f"by cause: {causes or '-'}", highlight=False)
    out.print(f"users with interests: {counted.records:,}", highlight=False)
    out.print(
        f"since the beginning: {', '.join(f'{n} {c:,}' for n, c in counted.totals.items()) or '-'}", highlight=False
    )
    if counted.parked:
        table = Table("parked user", "cause", "attempts", "since", "last error", box=None, pad_edge=False)
        for entry in store.parked(_SHOWN):
            since = _age(now - entry.not_before)
            row = (escape(entry.user_id), cause_name(entry.cause), str(entry.attempts), since, escape(entry.last_error))
            table.add_row(*row)
        out.print(table)
        if counted.parked > _SHOWN:
            out.print(f"and {counted.parked - _SHOWN:,} more")


def _process(status: NearlineStatus | None, *, free: bool, now: float) -> str:
    if free:
        return "process: none is running"
    if status is None:
        return "process: one is running and has not said anything yet (a drain by hand says nothing)"
    done = f"last batch {_age(now - status.refreshed_at)} ago" if status.refreshed_at else "no batch yet"
    error = f"; cannot refresh: {escape(status.error)}" if status.error else ""
    model = status.model or "none: the snapshot names no InterestGPT"
    return f"process: pid {status.pid}, snapshot {status.snapshot or '-'}, model {model}, {done}{error}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
