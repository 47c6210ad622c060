"""Export the feedback log as events of the host schema, one JSON object a line, oldest first.

serendip feedback export --build var/complete-journey > events.jsonl

Users of the erasure list (state/erasures; beside the feedback store) are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from serendipity.channel.errors import ChannelError
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore, host_events
from serendipity.tools.arguments import add_build, existing_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip feedback`."""
    parser.add_argument("action", choices=("export",))
    where = parser.add_mutually_exclusive_group(required=True)
    add_build(where, "build directory: state/feedback in it")
    where.add_argument("--feedback", type=existing_directory, metavar="DIR", help="the feedback store")
    parser.add_argument("--start", type=int, default=0, metavar="SEQUENCE", help="first sequence number exported")


def run(args: argparse.Namespace) -> int:
    """Print the log; returns 1 when there is none."""
    path = args.feedback or args.build / "state" / "feedback"
    if not path.is_dir():
        print(f"serendip feedback: {path}: no feedback store there", file=sys.stderr)
        return 1
    try:
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(FeedbackStore(path))
            erasures = stack.enter_context(ErasureList(path.parent / "erasures"))
            for event in host_events(store.log(args.start)):
                if not erasures.contains(str(event["user_id"])):
                    print(json.dumps(event, ensure_ascii=False))
    except ChannelError as error:
        print(f"serendip feedback: {error}", file=sys.stderr)
        return 1
    return 0
