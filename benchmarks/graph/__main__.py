"""Compare CIKG with popularity, BPR-MF, LightGCN and CFKG by full ranking, on the authors' data or a host's logs.

    python -m benchmarks.graph --data DIR --out docs/results/graph-dbbook2014.md     one training of each row
    python -m benchmarks.graph --data DIR --trials 5 --seeds 3 --ablations           and other parts, random edges
    python -m benchmarks.graph --data DIR --full                                     three seeds, all trials, ablations
    python -m benchmarks.graph --dataset ml-1m --users 1500                          logs of a data set of the product
    python -m benchmarks.graph --dataset complete-journey --readers BUILD            and other uses of a build's graph

Settings and epochs are chosen on clicks held out of train; test is looked at once a row and seed. Every result
is kept below --work as soon as it is there, so that a killed run goes on where it stopped. Uses a GPU where there is
one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.coea.dataset import find_logs
from benchmarks.command import facts_of, failed, options_of, publish, read_options
from benchmarks.graph.author_files import AuthorData, read_author_files
from benchmarks.graph.host_data import HostData, read_host_data
from benchmarks.graph.page import page
from benchmarks.graph.readers import reader_sections
from benchmarks.graph.recbole_library import require_recbole
from benchmarks.graph.rows import (
    CIKG,
    Row,
    Settings,
    ablations,
    limited,
    main_rows,
    profile_row,
    spectral_row,
)
from benchmarks.graph.runs import Laboratory, Run
from benchmarks.graph.support import support_section
from serendipity.offline.datasets.registry import ADAPTERS
from serendipity.offline.errors import BuilderError
from serendipity.offline.graph.config import GraphConfig
from serendipity.tools.arguments import positive

_FULL_SEEDS = 3

_AUTHORS_INTERESTS = (
    "The authors' interests were inferred from all of train, so validation leaks towards rows that see them; test does "
    "not"
)
_HOST_INTERESTS = (
    "Interests were inferred from the train clicks alone, and for validation from what is left of them without its "
    "eighth (how many there are is chosen on all of train), so neither validation nor test leaks"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and publish the page; returns 1 when the data or a package is missing."""
    parser = options_of("graph", __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="folder of the authors' files")
    source.add_argument("--dataset", choices=sorted(ADAPTERS), help="logs of a data set, split at random")
    parser.add_argument("--users", type=positive, help="users of the data set, drawn at random (default: all)")
    parser.add_argument("--epochs", type=positive, help="epochs of a training at most")
    parser.add_argument("--batch", type=positive, help="clicks of a step")
    parser.add_argument("--seeds", type=positive, default=1, help="number of seeds, from 0")
    parser.add_argument("--trials", type=positive, default=1, help="settings that validation chooses from")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows of the comparison (default: all)")
    parser.add_argument(
        "--ablations",
        nargs="*",
        metavar="NAME",
        help="also CIKG with other parts and with noise (all), seed 0",
    )
    parser.add_argument("--ablation-epochs", type=positive, metavar="N", help="epochs of these (default: CIKG's)")
    parser.add_argument("--full", action="store_true", help="three seeds, all trials of settings, ablations")
    parser.add_argument("--readers", type=Path, metavar="BUILD", help="also other uses of the graph of this build")
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
    if args.data and (args.users or args.readers):
        raise BuilderError("--data: found --users or --readers as well, expected them with --dataset")
    name = args.dataset or args.data.resolve().name
    work = args.work or Path("var") / "evaluation" / "graph" / name
    data = read_host_data(find_logs(name, work), args.users) if args.dataset else read_author_files(args.data)
    given = [*main_rows(None if args.full else args.trials), spectral_row()]
    rows = _named([limited(row, args.epochs, args.batch) for row in given], "--rows", args.rows)
    parted = [*ablations(), *([profile_row(data.profile, data.num_values)] if isinstance(data, HostData) else [])]
    others = _named(parted, "--ablations", args.ablations or None)
    if args.ablations is not None and CIKG not in [row.name for row in rows]:
        raise BuilderError(f"--ablations: found no {CIKG} among --rows, expected it: they change its settings")
    laboratory = Laboratory(data, work, _tell)
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
        epochs = args.ablation_epochs or trial.best_epoch
        for row in (Row(CIKG), *others):
            settings = row.change(base) if row.change else base
            # A part that CIKG lacks cannot be left out, nor one that it has added.
            if settings != base or not row.change:
                parts[row.name] = [laboratory.ablate(row, settings, 0, epochs)]
    args.seed = f"0–{seeds - 1}" if seeds > 1 else "0"
    sections = support_section(data.graph, np.random.default_rng(0))
    sections += reader_sections(args.readers, _tell) if args.readers else []
    facts = facts_of(args) | _facts(data)
    return page(f"CIKG on {name}", facts, data.graph, runs, parts, laboratory.trials, sections)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
        f"interest edges of {holders:,} users"
        + (f"; {data.num_values} values of {', '.join(data.attributes)}" if isinstance(data, HostData) else ""),
        "ranking": "all items but those clicked in train; means over users with test clicks",
        "validation": "an eighth of every user's train clicks, at random, at least one of two or more. "
        + (_HOST_INTERESTS if isinstance(data, HostData) else _AUTHORS_INTERESTS),
    }


if __name__ == "__main__":
    sys.exit(main())
