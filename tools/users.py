"""Forget users, or list those forgotten. A running service obeys at once, without a restart.

    serendip users forget 718 1146 --state var/complete-journey/state
    serendip users list            --state var/complete-journey/state

A forgotten user is answered as a stranger and never queued or logged by id, feedback of theirs is refused, and builds
leave them out. What is removed at once: feedback record, near-line interests, place in the queue. What expires:
the feedback log and the serving log, by their retention; snapshots that still hold the user, once they are replaced.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from serendipity.channel.errors import ChannelError
from serendipity.channel.nearline.store import open_nearline
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.tools.arguments import add_build, identifier
from serendipity.tools.recall import result_console

_ACTIONS = {"forget": "Forget users.", "list": "List the users who are forgotten."}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip users`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = {name: actions.add_parser(name, help=text, description=text) for name, text in _ACTIONS.items()}
    added["forget"].add_argument("users", type=identifier, nargs="*", metavar="ID", help="users to forget")
    for action in added.values():
        where = action.add_mutually_exclusive_group(required=True)
        where.add_argument(
            "--state", type=Path, metavar="DIR", help="what the host keeps; the service's setting `state`"
        )
        add_build(where, "build directory: state/ in it")


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when a store cannot be read or written, 2 when no user is named."""
    state: Path = args.state or args.build / "state"
    # Its environment variables too: how long logs are kept is said, and stores are opened as the service opens them.
    settings = ServerSettings(snapshots=state.parent / "snapshots", state=state)
    try:
        if args.action == "list":
            _list(settings)
            return 0
        if not args.users:
            print("serendip users forget: ID is missing; name the users to forget", file=sys.stderr)
            return 2
        _forget(settings, args.users)
    except ChannelError as error:
        print(f"serendip users {args.action}: {error}", file=sys.stderr)
        return 1
    return 0


def _forget(settings: ServerSettings, users: Sequence[str]) -> None:
    # The list first: what is written about them from then on is refused, so that what is removed next stays removed.
    with ErasureList(settings.erasures_path) as erasures:
        added = [user_id for user_id in dict.fromkeys(users) if erasures.add(user_id)]
    records = interests = 0
    if settings.feedback_path.is_dir():
        with FeedbackStore(settings.feedback_path, map_bytes=settings.feedback_map_bytes) as feedback:
            records = sum(feedback.forget(user_id) for user_id in users)
    if settings.nearline_path.is_dir():
        with open_nearline(settings) as nearline:
            interests = nearline.forget_all(users)
    again = len(set(users)) - len(added)
    print(f"forgotten: {len(added)} users" + (f" ({again} were already)" if again else ""))
    print(f"removed: {records} feedback records, near-line entries or interests of {interests} users")
    print(
        f"expire: the feedback log within {settings.feedback_retention_days:g} days, the serving log within "
        f"{settings.serving_log_retention_days:g} days; snapshots, which are not read for them, {_snapshots(settings)}"
    )


def _snapshots(settings: ServerSettings) -> str:
    days = settings.snapshot_retention_days
    return f"within {days:g} days of being replaced" if days else "when you delete them"


def _list(settings: ServerSettings) -> None:
    if not settings.erasures_path.is_dir():
        print("nobody is forgotten")
        return
    with ErasureList(settings.erasures_path) as erasures:
        table = Table("user", "forgotten at (UTC)")
        for erased in erasures.users():
            moment = datetime.datetime.fromtimestamp(erased.at, datetime.UTC)
            table.add_row(escape(erased.user), f"{moment:%Y-%m-%d %H:%M:%S}")
    result_console().print(table)
