"""Refresh the latent interests of all users who are due, by InterestGPT on Triton.

    serendip interests refresh --due --build var/complete-journey --triton-url 127.0.0.1:8000
    serendip interests refresh --all --build …                 (all users, fresh or not)
    serendip interests refresh --user 718 --user 1146 --build …

A user is due whose interests are missing, expired, or of another taxonomy or vocabulary, as for `Recall`, and whom this
host owns (shard). They go through the same queue as those that requests ask for, so a run that is
interrupted goes on where it stopped when `--due` is run again. Where a service runs, its near-line process does the
work; otherwise this command does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from serendipity.channel.errors import ChannelError, SnapshotUnavailable
from serendipity.channel.nearline.drain import Drained, drain
from serendipity.channel.nearline.due import DueUser, DueUsers
from serendipity.channel.nearline.loop import generation_moment
from serendipity.channel.nearline.process import exclusive, opened_nearline
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.state.feedback_event import Ownership
from serendipity.tools.arguments import identifier
from serendipity.tools.nearline import add_work_options, print_drained, work_settings
from serendipity.tools.recall import result_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip interests`."""
    parser.add_argument("action", choices=("refresh",))
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--due", action="store_true", help="all users of the snapshot who are due")
    whom.add_argument("--all", action="store_true", help="all users of the snapshot, fresh or not")
    whom.add_argument(
        "--user", type=identifier, action="append", default=[], metavar="ID", help="one user, fresh or not; repeatable"
    )
    add_work_options(
        parser,
        server=["shard", "num_shards", "nearline_max_entries", "nearline_commit_seconds"],
        channel=["interest_hard_age_days"],
    )


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it cannot be done, or some user was refused."""
    try:
        server, channel = work_settings(args)
        drained = asyncio.run(_refresh(server, channel, args.user, result_console(), only_due=args.due))
    except (ChannelError, OSError) as error:
        print(f"serendip interests refresh: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("serendip interests refresh: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 1 if drained.refused else 0


async def _refresh(
    server: ServerSettings, channel: ChannelSettings, users: Sequence[str], out: Console, *, only_due: bool
) -> Drained:
    with exclusive(server) as works:
        async with opened_nearline(server, channel) as nearline:
            with nearline.holder.acquire() as lease:
                snapshot = lease.snapshot
                if not snapshot.interest_gpt:
                    raise SnapshotUnavailable(
                        f"snapshot {snapshot.versions.snapshot}: interest_gpt: found none, expected one; build "
                        "with InterestGPT and publish"
                    )
                moment = generation_moment(channel, snapshot, time.time())
                owned = Ownership(server.shard, server.num_shards)
                known = DueUsers(snapshot, nearline.store, channel, moment)
                out.print(
                    f"model {snapshot.interest_gpt}, "
                    + ("asked by this command" if works else "asked by the running service")
                )
                with _progress(out) as progress:
                    task = progress.add_task("users", total=len(users) or len(known))

                    def chosen() -> Iterator[DueUser]:
                        for user in map(known.look, users) if users else known.all():
                            progress.advance(task)
                            # Other hosts refresh their own users.
                            if owned.owns(user.user_id) and (user.cause is not None or not only_due):
                                yield user if only_due else user.by_operator()

                    drained = await drain(nearline, works=works, kinds=(Kind.INTERESTS,), users=chosen())
    print_drained(out, drained)
    return drained


def _progress(out: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
        transient=True,
    )
