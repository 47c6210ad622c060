"""Compare the towers with tuned controls on held-out time, over several seeds.

Reads the logs and interests of a build over all clicks and holds the last 10 % of the clicks out itself. Without such a
build, both are made first. Writes towers.json and towers.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from serendipity.offline.build_config import load_build_config
from serendipity.offline.datasets.registry import prepare
from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.methods_report import run_heading
from serendipity.offline.evaluate.towers import evaluate_towers
from serendipity.offline.evaluate.towers_report import MARKDOWN_REPORT, write_towers_report
from serendipity.offline.interests.builder import build_interests
from serendipity.offline.interests.summary import SUMMARY as INTERESTS_SUMMARY
from serendipity.offline.logs.builder import SUMMARY as LOGS_SUMMARY
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.tools.arguments import add_build, natural, new_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate towers`."""
    parser.add_argument("--dataset", default="complete-journey", help="data set or host folder")
    add_build(parser, "build directory (default: var/DATASET)")
    parser.add_argument("--seeds", type=natural, nargs="+", default=[0, 1, 2], help="seeds of the towers")
    parser.add_argument("--config", type=Path, metavar="FILE", help="build configuration (TOML); its [towers] is used")
    parser.add_argument(
        "--out", type=new_directory, metavar="DIR", help="for reports (default: var/DATASET-evaluation)"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the report and say where it lies; returns 1 when something is refused."""
    try:
        return _evaluate(args)
    except (BuilderError, ValidationError, ValueError) as error:
        print(f"serendip evaluate towers: {args.build or args.dataset}: {error}", file=sys.stderr)
        return 1


def _evaluate(args: argparse.Namespace) -> int:
    name = Path(args.dataset).resolve().name
    build = args.build or Path("var") / name
    out = args.out or Path("var") / f"{name}-evaluation"
    config = load_build_config(args.config).towers
    seeds = list(dict.fromkeys(args.seeds))
    started = time.time()
    logs, interests = _inputs(args.dataset, build, out)
    encoder = TextEncoder.from_path(default_path()) if config.title_text else None
    console = Console()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        evaluation = evaluate_towers(logs, interests, config, seeds, out / "checkpoints", encoder, progress)
    heading = run_heading(shlex.join(["serendip", *sys.argv[1:]]), started, time.time())
    # What lies in a build is what was built there, whatever data set is named beside it.
    title = args.build.resolve().name if args.build else name
    write_towers_report(evaluation, out, dataset=title, heading=heading, configuration=config.model_dump(mode="json"))
    console.print(Markdown((out / MARKDOWN_REPORT).read_text(encoding="utf-8")))
    console.print(f"written: {out / MARKDOWN_REPORT}")
    return 0


def _inputs(dataset: str, build: Path, out: Path) -> tuple[Path, Path]:
    """Find the logs and interests of a build, or make them below `out`."""
    for root in (build, out):
        if (root / "logs" / LOGS_SUMMARY).is_file() and (root / "interests" / INTERESTS_SUMMARY).is_file():
            return root / "logs", root / "interests"
    host = prepare(dataset, out)
    build_logs(host.directory, out / "logs", LogsConfig(novelty_level=host.novelty_level))
    build_interests(out / "logs", out / "interests", TextEncoder.from_path(default_path()))
    return out / "logs", out / "interests"
