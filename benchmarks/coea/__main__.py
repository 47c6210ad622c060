"""Compare what names novel categories: quality and novelty on the same users and candidates.

    python -m benchmarks.coea --dataset ml-1m                                        every row, 5 seeds
    python -m benchmarks.coea --dataset ml-1m --trials 'category ranker' --seeds 2   rows of the ranker and popularity

Every training is kept below --out as soon as it is there, so that a killed run goes on where it stopped. MovieLens is
split by each user's last clicks, every other data set by time. Writes coea-DATASET.md, .json and .png.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.coea.category_ranker import RankerTrial
from benchmarks.coea.coea import CoeaTrial
from benchmarks.coea.comparison import Cutoffs, compare
from benchmarks.coea.dataset import find_logs, read_split
from benchmarks.coea.gru4rec import Gru4RecTrial
from benchmarks.coea.report import About, write_report
from benchmarks.coea.rows import rows
from benchmarks.coea.trial import Trial, run_trials
from benchmarks.command import failed, options_of
from serendipity.offline.errors import BuilderError
from serendipity.tools.arguments import positive

TRIALS: dict[str, Trial] = {trial.name: trial for trial in (RankerTrial(), Gru4RecTrial(), CoeaTrial())}
"""What is trained, by name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print the report and say where it lies; returns 1 when something that is needed is missing."""
    parser = options_of("coea", __doc__)
    parser.add_argument("--dataset", default="ml-1m", help="data set or host folder")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="logs of all its clicks (default: built below --out)")
    parser.add_argument(
        "--trials", nargs="*", choices=TRIALS, metavar="NAME", help=f"some of {', '.join(TRIALS)}: rows of others lack"
    )
    parser.add_argument("--seeds", type=positive, default=5, help="number of seeds, from 0")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one core each")
    parser.add_argument("--out", type=Path, metavar="DIR", help="reports and results (default: var/evaluation/coea/…)")
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("benchmarks.coea").setLevel(logging.INFO)
    try:
        return _compare(parser.parse_args(argv))
    except BuilderError as error:
        return failed(parser, error)


def _compare(args: argparse.Namespace) -> int:
    name = Path(args.dataset).name
    out = args.out or Path("var") / "evaluation" / "coea" / name
    started = time.time()
    split = read_split(args.logs or find_logs(args.dataset, out), name)
    asked = list(TRIALS) if args.trials is None else args.trials
    found = run_trials(split, [TRIALS[trial] for trial in asked], range(args.seeds), out / "results", args.jobs)
    comparison = compare(split, rows(), found, Cutoffs.of(split))
    some = "" if args.trials is None else f" --trials {shlex.join(args.trials)}"
    command = f"python -m benchmarks.coea --dataset {args.dataset}{some} --seeds {args.seeds}"
    about = About(name, command, started, time.time() - started)
    write_report(comparison, found, split, out, about)
    console = Console()
    console.print(Markdown((out / about.page).read_text(encoding="utf-8")))
    console.print(f"written: {out / about.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
