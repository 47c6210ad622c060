"""Run further cycles of a build's closed loop: the daily run that learns from what came in, and makes the lists anew.

    serendip coevolve --build var/mine
    serendip coevolve --build var/mine --cycles 1 --logs var/since-build/logs --feedback var/mine/state/feedback

--build is a directory that `serendip build` made. Its coevolution/ is replaced by the LLMs and lists after the cycles;
the next build keeps these, and makes and publishes a snapshot of them. --logs and --feedback are all that came in since
the build, in every run: the input of earlier runs is not kept. A killed run is continued by the same command.
A service of several hosts has a feedback store on each, of its own users: --feedback is given for every one of them.

Nothing is learned from users to be forgotten: --erasures (default: <build>/state/erasures), and the list beside each
feedback store. What came in of them is left out and counted; if the build's own logs hold any, the build comes first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from serendipity.groups.model import GroupModelError
from serendipity.layout import user_key
from serendipity.offline.coevolution.builder import continue_coevolution, forget_work
from serendipity.offline.coevolution.feedback import Feedback, read_feedback
from serendipity.offline.coevolution.increment import Increment
from serendipity.offline.errors import BuilderError
from serendipity.offline.group_steps import COEVOLUTION, describe_coevolution
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.tables import read_rows
from serendipity.offline.progress import describe
from serendipity.offline.steps import Numbers, renew_step

ERASURES = "erasures"
"""Directory of the erasure list, in a build's state and beside a feedback store."""


class MissingSourceError(BuilderError):
    """What an option names is not there: names the option, the path, and what was expected."""


class ErasedUsersError(BuilderError):
    """A build's own logs hold users to be forgotten: names the logs, how many, and the command that leaves them out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip coevolve`."""
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory")
    parser.add_argument("--cycles", type=int, default=1, metavar="N", help="cycles to run")
    parser.add_argument(
        "--logs",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="all logs since the build: clicks that it has not; repeatable",
    )
    parser.add_argument(
        "--feedback",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="feedback store of a host, <state>/feedback; repeatable: one for each host",
    )
    parser.add_argument(
        "--erasures", type=Path, metavar="DIR", help="list of users to be forgotten (default: BUILD/state/erasures)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the cycles; returns 1 when something given cannot be used."""
    console = Console()
    if args.cycles < 1:
        print(f"serendip coevolve: --cycles: found {args.cycles}, expected at least 1", file=sys.stderr)
        return 1
    built = args.build / COEVOLUTION
    try:
        logs = _sources("--logs", args.logs, "output of the logs builder")
        stores = _sources("--feedback", args.feedback, "a feedback store")
        catalogue = Catalogue.read(args.build / "logs")
        lists = _erasure_lists(args)
        _require_without(lists, args.build)
        erasures = Erasures(frozenset[bytes]().union(*(erasures.keys for erasures in lists.values())))
        new_logs = [_of_logs(path, catalogue, erasures, console) for path in logs]
        click_types = LogsSummary.read(logs_directory(args.build / "logs")).click_types
        recorded = [_of_feedback(path, catalogue, click_types, erasures, console) for path in stores]

        def make(out: Path) -> Numbers:
            spec = continue_coevolution(
                built,
                out,
                args.build / "logs",
                args.build / "groups",
                args.cycles,
                [*new_logs, *(feedback.clicks for feedback in recorded)],
                shown=[feedback.shown for feedback in recorded],
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


def _sources(option: str, paths: Sequence[Path], expected: str) -> list[Path]:
    """List what an option was given, each directory once. Raises MissingSourceError when one is not there."""
    for path in paths:
        if not path.exists():
            raise MissingSourceError(f"{option}: found nothing at {path}, expected {expected}")
    # Read twice, a directory would teach nothing more, but what is told of the two would not add up.
    return list({path.resolve(): path for path in paths}.values())


def _erasure_lists(args: argparse.Namespace) -> dict[Path, Erasures]:
    """Read whom to forget: the list given, or the build's, and those beside the feedback stores.

    A list that is asked for must be there; without one beside a service's state nobody asked to be forgotten.
    """
    kept = [args.build / "state" / ERASURES] if args.erasures is None else []
    kept += [store.parent / ERASURES for store in args.feedback]
    given = [] if args.erasures is None else [args.erasures]
    return {path: Erasures.read(path) for path in [*given, *(path for path in kept if path.is_dir())]}


def _require_without(lists: Mapping[Path, Erasures], build: Path) -> None:
    """Raise ErasedUsersError if the build's own logs hold users to be forgotten.

    The next build leaves them out and makes groups, LLMs and lists anew, so cycles run before it would be lost, and
    would have learned from these users.
    """
    logs = logs_directory(build / "logs")
    user_ids = [user_id for (user_id,) in read_rows(logs / "users.parquet", "user_id")]
    for path, erasures in lists.items():
        found = len(_erased(user_ids, erasures))
        if found:
            taken = "" if path == build / "state" / ERASURES else f" --erasures {path}"
            raise ErasedUsersError(
                f"{logs}: found {found:,} users of the erasure list {path}, expected none: run "
                f"`serendip build --out {build}{taken}` with the build's configuration first, which leaves them out"
            )


def _erased(user_ids: Sequence[str], erasures: Erasures) -> set[str]:
    return {user_id for user_id in set(user_ids) if user_key(user_id) in erasures.keys}


def _of_logs(path: Path, catalogue: Catalogue, erasures: Erasures, console: Console) -> Increment:
    """Read clicks of logs since, and tell how many."""
    found = Increment.of_logs(Histories.read(path), Catalogue.read(path), catalogue)
    erased = _erased(found.user_ids, erasures)
    kept = np.array([user_id not in erased for user_id in found.user_ids], np.bool_)
    rest = replace(
        found,
        user_ids=[user_id for user_id in found.user_ids if user_id not in erased],
        items=found.items[kept],
        categories=found.categories[kept],
        times=found.times[kept],
    )
    console.print(
        f"{path}: {len(rest):,} clicks, {found.unknown:,} of unknown categories; "
        f"left out: {len(found) - len(rest):,} clicks of {len(erased):,} users to be forgotten",
        highlight=False,
        soft_wrap=True,
    )
    return rest


def _of_feedback(
    store: Path, catalogue: Catalogue, click_types: Collection[str], erasures: Erasures, console: Console
) -> Feedback:
    """Read clicks and exposures of a feedback store, and tell how many."""
    found = read_feedback(store, catalogue, click_types, erasures)
    left_out = ", ".join(f"{reason} {number:,}" for reason, number in sorted(found.skipped.items()))
    console.print(
        f"{store}: {len(found.clicks):,} clicks, {len(found.shown):,} exposures; left out: {left_out or 'nothing'}",
        highlight=False,
        soft_wrap=True,
    )
    return found
