"""Read an experiment out: what became of the answers with each experiment tag, by the serving log and feedback.

    serendip experiment report --state var/mine/state [--state …] --baseline control --out experiment.md

Hosts put `experiment_tag` into requests, and `recall_id` into feedback. Answers count once their log is closed, at the
latest an hour after they were given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from serendipity.channel.errors import ChannelError
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.offline.evaluate.experiment import Outcome, read_experiment, to_markdown
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.host_table import one_line
from serendipity.tools.arguments import existing_directory, natural
from serendipity.v1 import channel_pb2

_CLICKED = (channel_pb2.EVENT_TYPE_CLICK, channel_pb2.EVENT_TYPE_ORDER)
_SHOWN = (*_CLICKED, channel_pb2.EVENT_TYPE_EXPOSURE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip experiment`."""
    parser.add_argument("action", choices=("report",))
    parser.add_argument(
        "--state",
        type=existing_directory,
        required=True,
        action="append",
        metavar="DIR",
        help="what a host keeps; the service's setting `state`. Once for each host",
    )
    parser.add_argument("--baseline", metavar="TAG", help="arm to compare with (default: the one with most answers)")
    parser.add_argument("--seed", type=natural, default=0, help="seed of the bootstrap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables here, too")


def run(args: argparse.Namespace) -> int:
    """Print the tables; returns 1 when there is nothing to make them of."""
    hosts = [ServerSettings(snapshots=Path(), state=state) for state in args.state]
    try:
        logs = [host.serving_log_path for host in hosts]
        text = to_markdown(read_experiment(logs, _outcomes(hosts), args.baseline, args.seed))
        if args.out:
            args.out.write_text(f"# Experiment\n\n{text}\n", encoding="utf-8")
    except (ChannelError, LogsError, OSError) as error:
        print(f"serendip experiment: {error}", file=sys.stderr)
        return 1
    except duckdb.Error as error:
        # DuckDB names the file of a log that is damaged.
        print(f"serendip experiment: {one_line(error)}", file=sys.stderr)
        return 1
    print(text)
    return 0


def _outcomes(hosts: Sequence[ServerSettings]) -> Iterator[Outcome]:
    for host in hosts:
        if host.feedback_path.is_dir():
            with FeedbackStore(host.feedback_path, map_bytes=host.feedback_map_bytes) as store:
                for _, record in store.log():
                    event = record.event
                    if event.recall_id and event.type in _SHOWN:
                        yield event.recall_id, event.item_id, event.type in _CLICKED
