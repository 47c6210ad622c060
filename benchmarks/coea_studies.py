"""Study CoEA beside its table: rounds of its cycles, what its categories have to do with its users, its parameters.

    python -m benchmarks.coea_studies --dataset ml-1m                       everything, 5 seeds
    python -m benchmarks.coea_studies --dataset ml-1m --studies rounds --seeds 2
    python -m benchmarks.coea_studies --dataset ml-1m --studies sweeps --seeds 2 --jobs 2

rounds     quality and novelty after every round, with and without the divergence (Figure 4)
affinity   cosine of the categories named and the user's long-term interest (Table 3)
sweeps     one parameter moved at a time, on validation, at small scale (Figure 6)

Every trial is kept below --out, so that a killed run goes on where it stopped; one core and one seed a job. Each study
writes a page, its numbers and a plot: STUDY.md, STUDY.json, STUDY.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.coea.dataset import find_logs, read_split
from benchmarks.coea.report import About
from benchmarks.coea.settings import llms_of
from benchmarks.coea.studies import affinity, rounds, sweeps
from benchmarks.coea.studies.pages import write_affinity, write_rounds, write_sweeps
from benchmarks.coea.studies.panel import VALIDATION_USERS, reduced
from benchmarks.coea.studies.variant import Variant
from benchmarks.coea.trial import Trial, run_trials
from benchmarks.command import failed, options_of
from benchmarks.smollm2 import base_of
from serendipity.offline.errors import BuilderError
from serendipity.offline.tuning.base_model import TINY
from serendipity.tools.arguments import positive

STUDIES = ("rounds", "affinity", "sweeps")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials, print each study's page and say where it lies; returns 1 where data are missing or wrong."""
    parser = options_of("coea_studies", __doc__)
    parser.add_argument("--dataset", default="ml-1m", help="data set or host folder")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="logs of all its clicks (default: built below --out)")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES, help="some instead of all")
    parser.add_argument("--base", default=TINY, help="of both LLMs: tiny, smollm2 or a model's directory")
    parser.add_argument("--rounds", type=positive, default=rounds.ROUNDS, help="rounds of the curves")
    parser.add_argument(
        "--validation-users", type=positive, default=VALIDATION_USERS, help="users asked for on validation, at most"
    )
    parser.add_argument("--seeds", type=positive, default=5, help="number of seeds, from 0")
    parser.add_argument("--jobs", type=positive, default=1, help="seeds run at once, one core each")
    parser.add_argument("--out", type=Path, metavar="DIR", help="pages and results (default: var/evaluation/coea/…)")
    try:
        return _study(parser.parse_args(argv))
    except BuilderError as error:
        return failed(parser, error)


def _study(args: argparse.Namespace) -> int:
    name = Path(args.dataset).name
    out = args.out or Path("var") / "evaluation" / "coea" / name
    started = time.time()
    split = reduced(read_split(args.logs or find_logs(args.dataset, out), name), args.validation_users)
    base = Variant(llms=llms_of(base_of(args.base)))
    found_sweeps = sweeps.sweeps(sweeps.small(base))
    trials: dict[str, Sequence[Trial]] = {
        "rounds": rounds.trials(base, args.rounds),
        "affinity": (affinity.AffinityTrial(base),),
        "sweeps": sweeps.trials(found_sweeps),
    }
    wanted = [study for study in STUDIES if study in args.studies]
    console = Console()
    asked = [trial for study in wanted for trial in trials[study]]
    results = run_trials(split, asked, range(args.seeds), out / "results", args.jobs)
    about = About(name, _command(args, wanted), started, time.time() - started)
    for study in wanted:
        names = {trial.name for trial in trials[study]}
        ours = [result for result in results if result.name in names]
        if study == "rounds":
            page = write_rounds(rounds.study(ours, split), split, out, about)
        elif study == "affinity":
            page = write_affinity(affinity.study(ours, split), split, out, about)
        else:
            seconds = sum(result.seconds for result in ours)
            page = write_sweeps(sweeps.study(found_sweeps, ours, split), seconds, split, out, about)
        console.print(Markdown(page.read_text(encoding="utf-8")))
        console.print(f"written: {page}")
    return 0


def _command(args: argparse.Namespace, studies: Sequence[str]) -> str:
    command = f"python -m benchmarks.coea_studies --dataset {args.dataset} --studies {' '.join(studies)}"
    if "rounds" in studies:
        command += f" --rounds {args.rounds}"
    if args.base != TINY:
        command += f" --base {args.base}"
    return f"{command} --validation-users {args.validation_users} --seeds {args.seeds}"


if __name__ == "__main__":
    sys.exit(main())
