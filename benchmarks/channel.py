"""Measure Recall next to its floor, and exact category search next to ANN with a selector.

    python -m benchmarks.channel --build var/complete-journey --out docs/results/bench.md

The floor does, in one bare process, what an answer cannot do without: the same LMDB reads, one Triton call, the same
searches. Compare ratios within one run; the milliseconds belong to the machine and the moment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.recall import Latencies, bench_recall
from benchmarks.search import SearchRow, bench_search
from serendipity import layout
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import open_snapshot
from serendipity.tools.arguments import positive
from serendipity.tools.deploy import DeployError, load
from serendipity.tools.pinned_models import user_tower
from serendipity.tools.service import ServiceError, launch_service
from serendipity.tools.triton import launch
from serendipity.tools.triton_program import TritonError

_SYNTHETIC = (300_000, 64, 100)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started."""
    parser = options_of("channel", __doc__)
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET)")
    parser.add_argument("--dataset", default="complete-journey", help="names the default build directory")
    parser.add_argument("--users", type=positive, default=1000, help="users asked")
    parser.add_argument("--count", type=int, default=100, help="candidates asked for")
    parser.add_argument("--concurrency", type=int, default=8, help="callers at a time, for the throughput")
    parser.add_argument("--queries", type=int, default=200, help="queries of the search comparison")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report (Markdown)")
    args = read_options(parser, argv)
    build = args.build or Path("var") / args.dataset
    current = build / "snapshots" / layout.CURRENT
    if not current.exists():
        return failed(parser, f"{current}: nothing published; run `serendip build` first")
    directory = current.resolve()
    try:
        latencies = _recall(args, build, directory)
    except (ServiceError, TritonError, DeployError) as error:
        return failed(parser, error)
    return publish(_report(args, directory, latencies, _search(args, directory)), args.out)


def _recall(args: argparse.Namespace, build: Path, directory: Path) -> list[Latencies]:
    manifest = layout.read_manifest(directory)
    users = _warm_users(directory, args.users, args.seed)
    with launch(build / "models") as triton:
        load(triton.url, user_tower(manifest.tower, manifest.vector_index.dim))
        options = {"clock": "snapshot", "state": str(build / "bench-state"), "default_deadline_ms": "5000"}
        with launch_service(build, triton.url, workers=1, options=options) as service:
            return bench_recall(
                directory,
                service.address,
                triton.url,
                users,
                count=args.count,
                interests_used=ChannelSettings().interests_used,
                concurrency=args.concurrency,
            )


def _warm_users(directory: Path, wanted: int, seed: int) -> list[str]:
    """Sample users that have a record and interests."""
    snapshot = open_snapshot(directory)
    try:
        known = {key for key, _ in snapshot.interests.values()} & {key for key, _ in snapshot.users.values()}
    finally:
        snapshot.close()
    users = sorted(key.decode() for key in known if key != layout.DEFAULT_USER and key[:1] != b"\x01")
    chosen = np.random.default_rng(seed).choice(len(users), min(wanted, len(users)), replace=False)
    return [users[i] for i in chosen.tolist()]


def _search(args: argparse.Namespace, directory: Path) -> dict[str, list[SearchRow]]:
    manifest = layout.read_manifest(directory)
    generator = np.random.default_rng(args.seed)
    vectors = np.load(directory / layout.ITEM_VECTORS)
    offsets = np.array(manifest.category_offsets, np.int64)
    queries = vectors[generator.choice(len(vectors), args.queries)] + 0.1 * generator.standard_normal(
        (args.queries, vectors.shape[1]), np.float32
    )
    n, dim, categories = _SYNTHETIC
    made = generator.standard_normal((n, dim), np.float32)
    asked = generator.standard_normal((args.queries, dim), np.float32)
    edges = np.linspace(0, n, categories + 1).astype(np.int64)
    return {
        f"{len(vectors):,} × {vectors.shape[1]} item vectors of {manifest.version}": bench_search(
            vectors, offsets, queries, allowed=(3, 30, 200), k=100, seed=args.seed
        ),
        f"{n:,} × {dim} random vectors in {categories} categories": bench_search(
            made, edges, asked, allowed=(3, 30), k=100, seed=args.seed
        ),
    }


def _report(
    args: argparse.Namespace, directory: Path, latencies: list[Latencies], searches: dict[str, list[SearchRow]]
) -> str:
    floor = latencies[0]
    lines = [
        "# Benchmark",
        "",
        f"{made_by(args)}.",
        "Load, service and Triton share the machine.",
        "",
        f"## Recall: {args.count} candidates, snapshot {directory.name}, {len(floor.milliseconds)} users, one worker",
        "",
        "| | p50 ms | p99 ms | calls/s | p50 ÷ floor | p99 ÷ floor | calls/s ÷ floor |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {m.name} | {m.p50:.2f} | {m.p99:.2f} | {m.throughput:.0f} "
        f"| {m.p50 / floor.p50:.2f} | {m.p99 / floor.p99:.2f} | {m.throughput / floor.throughput:.2f} |"
        for m in latencies
    ]
    for title, rows in searches.items():
        exact = {row.categories: row.milliseconds for row in rows if row.method.startswith("exact")}
        lines += [
            "",
            f"## Search inside categories: {title}, k = 100, one thread, {args.queries} queries",
            "",
            "| categories allowed | rows | method | ms a query (median) | ÷ exact slices | recall@100 |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r.categories} | {r.rows:,} | {r.method} | {r.milliseconds:.3f} "
            f"| {r.milliseconds / exact[r.categories]:.2f} | {r.recall:.3f} |"
            for r in rows
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
