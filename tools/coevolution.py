"""Go on with the closed loop of a build: the daily run that learns from what came in, and makes the lists anew.

    serendip coevolve --build var/mine
    serendip coevolve --build var/mine --cycles 1 --logs var/today/logs --feedback var/mine/state/feedback

--build is a directory with logs/, groups/ and coevolution/ as `serendip build` makes them; coevolution/ is replaced by
one that is some cycles older. A run that was killed is continued by the same command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from serendipity.groups.model import GroupModelError
from serendipity.offline.coevolution.builder import continue_coevolution
from serendipity.offline.coevolution.feedback import read_feedback
from serendipity.offline.coevolution.increment import Increment
from serendipity.offline.coevolution.lists import read_lists
from serendipity.offline.errors import BuilderError
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip coevolve`."""
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory")
    parser.add_argument("--cycles", type=int, default=1, metavar="N", help="cycles to run")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="new logs: clicks in them that the build has not")
    parser.add_argument("--feedback", type=Path, metavar="DIR", help="feedback store of a host: <state>/feedback")


def run(args: argparse.Namespace) -> int:
    """Run the cycles; returns 1 when something given cannot be used."""
    console = Console()
    if args.cycles < 1:
        print(f"serendip coevolve: --cycles: found {args.cycles}, expected at least 1", file=sys.stderr)
        return 1
    built = args.build / "coevolution"
    try:
        catalogue = Catalogue.read(args.build / "logs")
        clicks: list[Increment] = []
        shown: list[Increment] = []
        if args.logs is not None:
            clicks.append(Increment.of_logs(Histories.read(args.logs), Catalogue.read(args.logs), catalogue))
            console.print(f"{args.logs}: {len(clicks[-1]):,} clicks, {clicks[-1].unknown:,} of unknown categories")
        if args.feedback is not None:
            types = LogsSummary.read(logs_directory(args.build / "logs")).click_types
            feedback = read_feedback(args.feedback, catalogue, types)
            clicks.append(feedback.clicks)
            shown.append(feedback.shown)
            rest = ", ".join(f"{reason} {number:,}" for reason, number in sorted(feedback.skipped.items()))
            console.print(
                f"{args.feedback}: {len(feedback.clicks):,} clicks, {len(feedback.shown):,} exposures; "
                f"left out: {rest or 'nothing'}",
                highlight=False,
            )
        spec = continue_coevolution(
            built,
            args.build / "logs",
            args.build / "groups",
            args.cycles,
            clicks,
            shown=shown,
            stage=lambda cycle, name: console.print(f"cycle {cycle}: {name} …", highlight=False),
        )
    except (BuilderError, GroupModelError, ValueError) as error:
        print(f"serendip coevolve: {error}", file=sys.stderr)
        return 1
    lists = read_lists(built)
    console.print(f"{built}: generation {spec.generation}, {len(lists):,} lists by {spec.novelty_model_name} and "
                  f"{spec.relevance_model_name}", highlight=False)  # fmt: skip
    return 0
