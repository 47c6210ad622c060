"""Compare CIKG with popularity, BPR-MF, LightGCN and CFKG by full ranking, on data as the authors publish them.

    python -m benchmarks.graph --data DIR --out docs/results/graph-dbbook2014.md     one training of each row
    python -m benchmarks.graph --data DIR --trials 5 --seeds 3 --ablations           and other parts, random edges
    python -m benchmarks.graph --data DIR --full                                     three seeds, all trials, ablations

Settings and epochs are chosen on clicks held out of train.txt; test.txt is looked at once a row and seed. Every result
is kept below --work as soon as it is there, so that a killed run goes on where it stopped. Uses a GPU where there is
one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.coea.recbole_library import require_recbole
from benchmarks.command import facts_of, failed, options_of, publish, read_options
from benchmarks.graph.page import page
from benchmarks.graph.rows import CIKG, Row, Settings, ablations, main_rows
from benchmarks.graph.runs import Laboratory, Run
from serendipity.offline.errors import BuilderError
from serendipity.offline.graph.author_files import AuthorData, read_author_files
from serendipity.offline.graph.config import GraphConfig
from serendipity.tools.arguments import positive

_FULL_SEEDS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and publish the page; returns 1 when the data or a package is missing."""
    parser = options_of("graph", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the authors' files")
    parser.add_argument("--seeds", type=positive, default=1, help="number of seeds, from 0")
    parser.add_argument("--trials", type=positive, default=1, help="settings that validation chooses from")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows of the comparison (default: all)")
    parser.add_argument(
        "--ablations",
        nargs="*",
        metavar="NAME",
        help="also CIKG with other parts and with noise (all), seed 0",
    )
    parser.add_argument("--full", action="store_true", help="three seeds, all trials of settings, ablations")
    parser.add_argument("--work", type=Path, metavar="DIR", help="results (default: var/evaluation/graph/NAME)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    try:
        require_recbole()
        return publish(_compare(args), args.out)
    except BuilderError as error:
        return failed(parser, error)


def _compare(args: argparse.Namespace) -> str:
    seeds = _FULL_SEEDS if args.full else args.seeds
    rows = _named(main_rows(None if args.full else args.trials), "--rows", args.rows)
    others = _named(ablations(), "--ablations", args.ablations or None)
    if args.ablations is not None and CIKG not in [row.name for row in rows]:
        raise BuilderError(f"--ablations: found no {CIKG} among --rows, expected it: they change its settings")
    data = read_author_files(args.data)
    name = args.data.resolve().name
    work = args.work or Path("var") / "evaluation" / "graph" / name
    laboratory = Laboratory(data, work, lambda line: print(line, file=sys.stderr))
    chosen: dict[str, Settings | None] = {}
    runs: dict[str, list[Run]] = {}
    for row in rows:
        chosen[row.name] = laboratory.choose(row)
        each = range(seeds if chosen[row.name] else 1)
        runs[row.name] = [laboratory.run(row, chosen[row.name], seed) for seed in each]
    parts: dict[str, list[Run]] = {}
    base = chosen.get(CIKG)
    asked = args.ablations is not None or args.full
    if asked and isinstance(base, GraphConfig) and (trial := runs[CIKG][0].trial):
        for row in others:
            settings = row.change(base) if row.change else base
            # A part that CIKG lacks cannot be left out, nor one that it has added.
            if settings != base or not row.change:
                parts[row.name] = [laboratory.ablate(row, settings, 0, trial.best_epoch)]
    args.seed = f"0–{seeds - 1}" if seeds > 1 else "0"
    return page(f"CIKG on {name}", facts_of(args) | _facts(data), data.graph, runs, parts, laboratory.trials)


def _named(rows: Sequence[Row], option: str, names: Sequence[str] | None) -> Sequence[Row]:
    unknown = sorted(set(names or ()) - {row.name for row in rows})
    if unknown:
        raise BuilderError(f"{option}: found {unknown[0]!r}, expected some of {', '.join(row.name for row in rows)}")
    return [row for row in rows if names is None or row.name in names]


def _facts(data: AuthorData) -> dict[str, str]:
    graph = data.graph
    holders = len(set(graph.holds[0].tolist()))
    return {
        "data": f"{graph.num_users:,} users, {graph.num_items:,} items, {graph.clicks.shape[1]:,} clicks to learn "
        f"from, {data.test.shape[1]:,} to find; {graph.knowledge.shape[1]:,} triples; {graph.holds.shape[1]:,} "
        f"interest edges of {holders:,} users",
        "ranking": "all items but those clicked in train; means over users with test clicks",
        "validation": "an eighth of every user's train clicks, at random, at least one of two or more. The authors' "
        "interests were inferred from all of train, so validation leaks towards rows that see them; test does not",
    }


if __name__ == "__main__":
    sys.exit(main())
