"""Compare latent interests with the categories users newly enter in the held-out period, beside popular unseen ones.

Reads the logs of a build that held its latest clicks out (`serendip evaluate channel` makes one).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serendipity.offline.evaluate.held_out_build import held_out_of
from serendipity.offline.interests.evaluation import evaluate_popular_unseen, evaluate_reasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import TaxonomyReasoner
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.errors import LogsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate interests`."""
    parser.add_argument("--dataset", default="complete-journey", help="names the default build directory")
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET-held-out)")
    parser.add_argument("--k", type=int, nargs="+", default=[8, 16], help="interests per user")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; returns 1 when nothing was held out."""
    build = args.build or Path("var") / f"{Path(args.dataset).name}-held-out"
    try:
        histories, catalogue, _ = held_out_of(build)
        cut = LogsSummary.read(build / "logs").events_until
        until = LogsSummary.read(build / "held_out" / "logs").events_until
    except LogsError as error:
        print(f"serendip evaluate interests: {error}", file=sys.stderr)
        return 1
    taxonomy = Taxonomy.from_catalogue(catalogue)
    reasoner = TaxonomyReasoner(taxonomy).fit(histories, cut)
    table = Table("interests", "K", "hit", "recall", "precision", "click recall", "users")
    for k in args.k:
        reports = {
            "popular unseen": evaluate_popular_unseen(histories, len(catalogue.categories), cut, until, k),
            reasoner.name: evaluate_reasoner(reasoner, taxonomy, histories, cut, until, k),
        }
        for name, report in reports.items():
            figures = (report.hit, report.recall, report.precision, report.click_recall)
            table.add_row(name, str(k), *(f"{figure:.4f}" for figure in figures), f"{report.num_users:,}")
    Console().print(table)
    return 0
