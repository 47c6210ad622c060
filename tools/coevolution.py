"""Go on with the closed loop of a build: the daily run that learns from what came in, and makes the lists anew.

    serendip coevolve --build var/mine
    serendip coevolve --build var/mine --cycles 1 --logs var/today/logs --feedback var/mine/state/feedback

--build is a directory that `serendip build` made; its coevolution/ is replaced by one that is some cycles older, which
the next build takes up: it keeps the LLMs, and makes and publishes a snapshot of them. What came in since the build is
given whole every time: what the last run was given is not kept. A run that was killed is continued by the same command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from serendipity.groups.model import GroupModelError
from serendipity.offline.coevolution.builder import continue_coevolution, forget_work
from serendipity.offline.coevolution.feedback import read_feedback
from serendipity.offline.coevolution.increment import Increment
from serendipity.offline.errors import BuilderError
from serendipity.offline.group_steps import COEVOLUTION, describe_coevolution
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.histories import Histories
from serendipity.offline.progress import describe
from serendipity.offline.steps import Numbers, renew_step


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
    built = args.build / COEVOLUTION
    try:
        catalogue = Catalogue.read(args.build / "logs")
        clicks, shown = _since(args, catalogue, console)

        def make(out: Path) -> Numbers:
            spec = continue_coevolution(
                built,
                out,
                args.build / "logs",
                args.build / "groups",
                args.cycles,
                clicks,
                shown=shown,
                stage=lambda cycle, name: console.print(f"cycle {cycle}: {name} …", highlight=False),
            )
            return describe_coevolution(spec, out)

        made = renew_step(args.build, COEVOLUTION, make)
        forget_work(built)
    except (BuilderError, GroupModelError) as error:
        print(f"serendip coevolve: {error}", file=sys.stderr)
        return 1
    console.print(f"{built}: {made.seconds:.1f} s  {describe(made.numbers)}", highlight=False, soft_wrap=True)
    console.print(f"`serendip build --out {args.build}` with the build's configuration publishes it", highlight=False)
    return 0


def _since(args: argparse.Namespace, catalogue: Catalogue, console: Console) -> tuple[list[Increment], list[Increment]]:
    """Read clicks and exposures that came in since, and tell how many."""
    clicks: list[Increment] = []
    shown: list[Increment] = []
    if args.logs is not None:
        clicks.append(Increment.of_logs(Histories.read(args.logs), Catalogue.read(args.logs), catalogue))
        console.print(
            f"{args.logs}: {len(clicks[-1]):,} clicks, {clicks[-1].unknown:,} of unknown categories",
            highlight=False,
            soft_wrap=True,
        )
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
            soft_wrap=True,
        )
    return clicks, shown
