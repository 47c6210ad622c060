"""Compare the towers with tuned controls on held-out time, λ = 0 against λ > 0, over several seeds.

Reads the logs and interests of a build over all clicks and holds the last 10 % of the clicks out itself. Without such a
build, both are made first. Writes towers.json and towers.md.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from serendipity.offline.datasets.registry import prepare
from serendipity.offline.encoder import TextEncoder, default_path
from serendipity.offline.evaluate.methods_report import run_heading
from serendipity.offline.evaluate.towers import evaluate_towers, variants_of
from serendipity.offline.evaluate.towers_report import MARKDOWN_REPORT, write_towers_report
from serendipity.offline.interests.builder import build_interests
from serendipity.offline.interests.summary import SUMMARY as INTERESTS_SUMMARY
from serendipity.offline.logs.builder import SUMMARY as LOGS_SUMMARY
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.towers.config import TowersConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate towers`."""
    parser.add_argument("--dataset", default="complete-journey", help="data set or host folder")
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the towers")
    parser.add_argument("--config", type=Path, metavar="FILE", help="build configuration (TOML); its [towers] is used")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where reports go (default: var/DATASET-evaluation)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the report and say where it lies."""
    name = Path(args.dataset).name
    build = args.build or Path("var") / name
    out = args.out or Path("var") / f"{name}-evaluation"
    given = tomllib.loads(args.config.read_text(encoding="utf-8")).get("towers", {}) if args.config else {}
    config = TowersConfig.model_validate(given)
    started = time.time()
    logs, interests = _inputs(args.dataset, build, out)
    encoder = TextEncoder.from_path(default_path()) if config.title_text else None
    console = Console()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        evaluation = evaluate_towers(
            logs, interests, variants_of(config), args.seeds, out / "checkpoints", encoder, progress
        )
    seeds = " ".join(str(seed) for seed in args.seeds)
    heading = run_heading(f"serendip evaluate towers --dataset {args.dataset} --seeds {seeds}", started, time.time())
    write_towers_report(evaluation, out, dataset=name, heading=heading, configuration=config.model_dump(mode="json"))
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
