"""Replay the held-out period through the real pipeline, beside popularity, ALS and BPR.

Builds <out> first, with the latest clicks held out, unless it is up to date. With --target a running service that
serves this build's snapshot is asked over gRPC instead of the pipeline in this process.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from serendipity import layout
from serendipity.offline.build_config import BuildConfigError, load_build_config
from serendipity.offline.datasets.adapter import DatasetError
from serendipity.offline.evaluate.channel import ChannelEvaluationConfig
from serendipity.offline.evaluate.channel_report import ChannelReport, to_markdown, write_report
from serendipity.offline.evaluate.held_out_build import evaluate_build
from serendipity.offline.evaluate.replay import Advance, Recall, ReplayError
from serendipity.offline.logs.errors import LogsError
from serendipity.tools.build import build_and_place
from serendipity.tools.pipeline import open_pipeline, open_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate channel`."""
    parser.add_argument("--dataset", default="complete-journey", help="data set or host folder")
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET-held-out)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with the build's configuration")
    parser.add_argument("--hold-out", type=float, default=0.1, metavar="SHARE", help="latest clicks held out")
    parser.add_argument("--target", metavar="HOST:PORT", help="ask this service, which serves the build's snapshot")
    parser.add_argument("--users", type=int, default=0, help="users replayed at most; 0: all")
    parser.add_argument("--no-baselines", action="store_true", help="leave popularity, ALS and BPR out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write channel.md and channel.json here")


def run(args: argparse.Namespace) -> int:
    """Build what is missing, replay, print the report; returns 1 when something is refused."""
    console = Console()
    build = args.build or Path("var") / f"{Path(args.dataset).name}-held-out"
    try:
        config = load_build_config(args.config, {"dataset": args.dataset, "hold_out": args.hold_out})
        build_and_place(config, build, console)
        evaluation = ChannelEvaluationConfig(max_users=args.users)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("users replayed", total=None)

            def advance(done: int) -> None:
                progress.advance(task, done)

            if args.target:
                with open_service(args.target) as recall:
                    report = _evaluate(build, evaluation, recall, args, advance)
            else:
                report = _evaluate(build, evaluation, None, args, advance)
    except (BuildConfigError, DatasetError, LogsError, ReplayError, layout.SnapshotError) as error:
        print(f"serendip evaluate channel: {error}", file=sys.stderr)
        return 1
    console.print(to_markdown(report), markup=False, highlight=False)
    if args.out:
        write_report(report, args.out)
    return 0


def _evaluate(
    build: Path, config: ChannelEvaluationConfig, recall: Recall | None, args: argparse.Namespace, advance: Advance
) -> ChannelReport:
    return evaluate_build(
        build, open_pipeline, config, recall=recall, with_baselines=not args.no_baselines, advance=advance
    )
