"""Run further cycles of a build's closed loop: the daily run that learns from what came in, and makes the lists anew.

    serendip coevolve --build var/mine --dataset path/to/folder

--build is a directory that `serendip build` made, --dataset the host's folder as it is now: with all events so far, in
every run, for the input of earlier runs is not kept. <build>/coevolution is replaced by the
LLMs and lists after the cycles; the next build keeps these, and makes and publishes a snapshot of them. A killed run is
continued by the same command.

Nothing is learned from users to be forgotten: their events are left out and counted; if the build's own logs hold any,
the build comes first.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from serendipity.groups.model import GroupModelError
from serendipity.layout import user_key
from serendipity.offline.coevolution.builder import continue_coevolution
from serendipity.offline.errors import BuilderError
from serendipity.offline.group_steps import COEVOLUTION, describe_coevolution
from serendipity.offline.logs.builder import LogsSummary, build_logs
from serendipity.offline.logs.catalogue import logs_directory
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.logs.tables import read_rows
from serendipity.offline.progress import describe
from serendipity.offline.steps import Numbers, renew_step
from serendipity.tools.arguments import add_build, existing_directory, positive


class ErasedUsersError(BuilderError):
    """A build's own logs hold users to be forgotten: names the logs, how many, and the command that leaves them out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip coevolve`."""
    add_build(parser, required=True)
    parser.add_argument("--dataset", type=existing_directory, metavar="DIR", help="the host's folder as it is now")
    parser.add_argument("--cycles", type=positive, default=1, metavar="N", help="cycles to run")
    parser.add_argument(
        "--erasures", type=Path, metavar="DIR", help="list of users to be forgotten (default: BUILD/state/erasures)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the cycles; returns 1 when something given cannot be used."""
    console = Console()
    built, kept = args.build / COEVOLUTION, args.build / "state" / "erasures"
    try:
        list_of_users = args.erasures or (kept if kept.is_dir() else None)
        erasures = Erasures.read(list_of_users)
        _require_without(erasures, args.build, "" if args.erasures is None else f" --erasures {args.erasures}")

        def make(out: Path) -> Numbers:
            # Hidden: the step's content is what is not.
            later = out / ".logs"
            if args.dataset:
                _read(args.dataset, later, args.build, erasures, console)
            spec = continue_coevolution(
                built,
                out,
                args.build / "logs",
                args.build / "groups",
                args.cycles,
                later if args.dataset else None,
                stage=lambda cycle, name: console.print(f"cycle {cycle}: {name} …", highlight=False),
            )
            shutil.rmtree(later, ignore_errors=True)
            return describe_coevolution(spec, out)

        made = renew_step(args.build, COEVOLUTION, make)
    except (BuilderError, GroupModelError) as error:
        print(f"serendip coevolve: {error}", file=sys.stderr)
        return 1
    console.print(f"{built}: {made.seconds:.1f} s  {describe(made.numbers)}", highlight=False, soft_wrap=True)
    console.print(f"`serendip build --out {args.build}` with the build's configuration publishes it", highlight=False)
    return 0


def _read(host: Path, logs: Path, build: Path, erasures: Erasures, console: Console) -> None:
    """Read a host's folder as the build's logs were read, and tell how much."""
    of_build = LogsSummary.read(logs_directory(build / "logs"))
    config = LogsConfig(
        novelty_level=of_build.novelty_level, click_types=of_build.click_types, signal_types=of_build.signal_types
    )
    found = build_logs(host, logs, config, erasures=erasures)
    console.print(
        f"{host}: {found.counts['clicks']:,} clicks, {found.counts['exposures']:,} exposures; left out: "
        f"{found.erased['events']:,} events of {found.erased['users']:,} users to be forgotten",
        highlight=False,
        soft_wrap=True,
    )


def _require_without(erasures: Erasures, build: Path, option: str) -> None:
    """Raise ErasedUsersError if the build's own logs hold users to be forgotten. option: that names the list.

    The next build leaves them out and makes groups, LLMs and lists anew, so cycles run before it would be lost, and
    would have learned from these users.
    """
    logs = logs_directory(build / "logs")
    found = sum(user_key(user_id) in erasures.keys for (user_id,) in read_rows(logs / "users.parquet", "user_id"))
    if found:
        raise ErasedUsersError(
            f"{logs}: found {found:,} users of the erasure list, expected none: run `serendip build --out "
            f"{build}{option}` with the build's configuration first, which leaves them out"
        )
