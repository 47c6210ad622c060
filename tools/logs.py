"""Look at a host's logs before anything is built of them: what is in them, what is wrong, what they are good for.

    serendip logs check path/to/folder
    serendip logs check s3://bucket/logs --config build.toml --json

Exit status 1: a channel cannot be built of them as they are.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serendipity.offline.build_config import load_build_config
from serendipity.offline.datasets.registry import prepare
from serendipity.offline.errors import BuilderError
from serendipity.offline.logs.survey import Survey, survey

_DAY = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `serendip logs check DATASET`."""
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="tell what the logs hold and what they are good for; builds nothing")
    check.add_argument("dataset", help="a folder, its URL, or complete-journey, ml-100k, ml-1m")
    check.add_argument("--config", type=Path, metavar="FILE", help="the build's configuration: its table [logs]")
    check.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Survey the logs and print what was found; returns 1 when they cannot be read or nothing can be built of them."""
    try:
        build = load_build_config(args.config, {"dataset": args.dataset})
        config = build.logs
        with tempfile.TemporaryDirectory() as directory:
            host = prepare(args.dataset, Path(directory))
            if "novelty_level" not in config.model_fields_set:
                config = config.model_copy(update={"novelty_level": host.novelty_level})
            found = survey(host.root, config, build.wanted_of_logs)
    except BuilderError as error:
        print(f"serendip logs: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(found.to_json())
    else:
        _print(Console(), found)
    for problem in found.problems:
        print(f"serendip logs: {problem}", file=sys.stderr)
    return 1 if found.problems else 0


def _print(console: Console, found: Survey) -> None:
    since, until = (datetime.fromtimestamp(time, UTC) for time in (found.since, found.until))
    facts = Table("what", "found", box=None, show_header=False)
    for name, rows in found.read.items():
        rejected = sum(n for reason, n in found.rejected.items() if reason.startswith(f"{name}/"))
        facts.add_row(f"rows of {name}", f"{rows:,}, of them rejected or repeated {rejected:,}")
    facts.add_row("time", f"{since:%Y-%m-%d} to {until:%Y-%m-%d}, longest gap {found.longest_gap / _DAY:.1f} days")
    facts.add_row("events", ", ".join(f"{name} {n:,}" for name, n in found.events.items()))
    facts.add_row("users with clicks", f"{found.users:,}, median clicks {found.clicks:g}")
    facts.add_row("items", f"{found.items:,}, available {found.available:,}, ever clicked {found.clicked:,}")
    console.print(facts)
    if found.rejected:
        reasons = Table("rejected", "rows", "such as", box=None)
        for reason, rows in sorted(found.rejected.items(), key=lambda entry: -entry[1]):
            # Hosts write what they like, brackets too; it is no markup.
            reasons.add_row(reason, f"{rows:,}", escape((found.examples.get(reason) or [""])[0][:80]))
        console.print(reasons)
    levels = Table(
        "level", "categories", "fill", "largest", "clicks in none", "a user's (median)", "novel later", box=None
    )
    for facts_of in found.levels:
        mark = "*" if facts_of.room.level == found.novelty_level else ""
        levels.add_row(
            f"{facts_of.room.level}{mark}",
            f"{facts_of.room.categories:,}",
            f"{facts_of.room.fill:.0%}",
            f"{facts_of.largest:.0%}",
            f"{facts_of.without:.0%}",
            f"{facts_of.touched:g}",
            f"{facts_of.novel:.1%}",
        )
    console.print(levels)
    console.print(
        "* as configured. fill: of the candidates asked for, the share in categories a user has not clicked lately; "
        "largest: share of clicks in the most clicked one; novel later: share of later clicks that would be novel",
        style="dim",
    )
    parts = Table("part", "outlook", "why", box=None)
    for prospect in found.prospects:
        parts.add_row(prospect.part, prospect.outlook, prospect.why)
    console.print(parts)
    cost = found.cost
    console.print(
        f"A build may take {cost.minutes:,.0f} minutes on two cores, {cost.memory_gb:.1f} GB of memory and "
        f"{cost.disk_gb:.1f} GB of disk, a worker that serves it {cost.worker_mb:.0f} MB: {cost.basis}.",
        highlight=False,
    )
    for line in [*found.advice, *found.warnings]:
        console.print(f"- {line}", markup=False, highlight=False)
