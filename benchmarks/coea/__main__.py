"""Compare methods that name novel categories: quality and novelty on the same users and candidates.

    python -m benchmarks.coea --dataset ml-1m                                  every row, 5 seeds
    python -m benchmarks.coea --dataset ml-1m --methods EXPLORE NLB --seeds 2  two rows, 2 seeds

Every result is kept below --out as soon as it is there, so that a killed run goes on where it stopped. MovieLens is
split by each user's last clicks, every other data set by time. Writes report.md, coea.json and trade-off.png.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.coea.comparison import Cutoffs, compare, run_comparison
from benchmarks.coea.dataset import find_logs, read_split
from benchmarks.coea.registry import NAMES, find_methods
from benchmarks.coea.report import MARKDOWN_REPORT, About, write_report
from benchmarks.command import failed, options_of
from benchmarks.smollm2 import base_of
from serendipity.offline.errors import BuilderError
from serendipity.offline.tuning.base_model import TINY
from serendipity.tools.arguments import positive


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print the report and say where it lies; returns 1 when something that is needed is missing."""
    parser = options_of("coea", __doc__)
    parser.add_argument("--dataset", default="ml-1m", help="data set or host folder")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="logs of all its clicks (default: built below --out)")
    parser.add_argument("--methods", nargs="+", choices=NAMES, metavar="NAME", help=f"rows: {', '.join(NAMES)}")
    parser.add_argument("--base", default=TINY, help="of CoEA's and Google's LLMs: tiny, smollm2 or a directory")
    parser.add_argument("--seeds", type=positive, default=5, help="number of seeds, from 0")
    parser.add_argument(
        "--jobs", type=positive, default=1, help="processes, one core each; rows of a module and seed share one"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="reports and results (default: var/evaluation/coea/…)")
    try:
        return _compare(parser.parse_args(argv))
    except BuilderError as error:
        return failed(parser, error)


def _compare(args: argparse.Namespace) -> int:
    name = Path(args.dataset).name
    out = args.out or Path("var") / "evaluation" / "coea" / name
    started = time.time()
    methods = find_methods(args.methods, base_of(args.base))  # what a row lacks is said before data are prepared
    split = read_split(args.logs or find_logs(args.dataset, out), name)
    lists = run_comparison(split, methods, range(args.seeds), out / "results", args.jobs)
    comparison = compare(split, methods, lists, Cutoffs.of(split))
    rows = f" --methods {shlex.join(args.methods)}" if args.methods else ""
    base = "" if args.base == TINY else f" --base {args.base}"
    command = f"python -m benchmarks.coea --dataset {args.dataset}{rows}{base} --seeds {args.seeds}"
    write_report(comparison, split, out, About(name, command, started, time.time() - started))
    console = Console()
    console.print(Markdown((out / MARKDOWN_REPORT).read_text(encoding="utf-8")))
    console.print(f"written: {out / MARKDOWN_REPORT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
