"""Compare exact search of category slices with HNSW and IVF under a selector, inside a few categories.

    python -m benchmarks.search --build var/complete-journey --out docs/results/search.md

One thread. The milliseconds belong to the machine; compare methods within a table.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.best import best
from benchmarks.command import facts_of, failed, options_of, publish, read_options
from serendipity import layout
from serendipity.tools.arguments import positive

# The stubs in the wheel miss what its Python layer adds to constructors.
_faiss: Any = faiss

_Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]
"""Query [d] → rows of the best."""

_HNSW_LINKS = 32
_IVF_LISTS = 512
"""At most; FAISS wants some 40 vectors a list."""
_PROBES = (16, 64)
_K = 100
_SYNTHETIC = (300_000, 64, 100)
"""Random vectors, their dimensions and their categories, beside the build's."""
_EXACT = "exact category slices"


@dataclass(frozen=True)
class SearchRow:
    """One method at one number of allowed categories. milliseconds: median a query; recall: against exact search."""

    method: str
    categories: int
    rows: int
    milliseconds: float
    recall: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 where there is no snapshot."""
    parser = options_of("search", __doc__)
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET)")
    parser.add_argument("--dataset", default="complete-journey", help="names the default build directory")
    parser.add_argument("--queries", type=positive, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of queries, categories and random vectors")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report (Markdown)")
    args = read_options(parser, argv)
    current = (args.build or Path("var") / args.dataset) / "snapshots" / layout.CURRENT
    if not current.exists():
        return failed(parser, f"{current}: nothing published; run `serendip build` first")
    manifest = layout.read_manifest(current)
    generator = np.random.default_rng(args.seed)
    vectors: NDArray[np.float32] = np.load(current / layout.ITEM_VECTORS)
    queries = vectors[generator.choice(len(vectors), args.queries)] + 0.1 * generator.standard_normal(
        (args.queries, vectors.shape[1]), np.float32
    )
    n, dim, categories = _SYNTHETIC
    made = generator.standard_normal((n, dim), np.float32)
    asked = generator.standard_normal((args.queries, dim), np.float32)
    edges = np.linspace(0, n, categories + 1).astype(np.int64)
    offsets = np.array(manifest.category_offsets, np.int64)
    lines = ["# Search inside categories", "", *(f"* {name}: {value}" for name, value in facts_of(args).items())]
    with threadpool_limits(limits=1):
        lines += _table(
            f"{len(vectors):,} × {vectors.shape[1]} item vectors of {manifest.version}",
            bench_search(vectors, offsets, queries, allowed=(3, 30, 200), k=_K, seed=args.seed),
        )
        lines += _table(
            f"{n:,} × {dim} random vectors in {categories} categories",
            bench_search(made, edges, asked, allowed=(3, 30), k=_K, seed=args.seed),
        )
    return publish("\n".join(lines) + "\n", args.out)


def bench_search(
    vectors: NDArray[np.float32],
    category_offsets: NDArray[np.int64],
    queries: NDArray[np.float32],
    *,
    allowed: tuple[int, ...],
    k: int,
    seed: int,
) -> list[SearchRow]:
    """Search among `vectors` [n, d] for `queries` [q, d] in so many random categories, by every method, on one thread.

    Returns a row per method and number of categories.
    """
    faiss.omp_set_num_threads(1)
    hnsw = _faiss.IndexHNSWFlat(vectors.shape[1], _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    hnsw.add(vectors)
    quantizer = _faiss.IndexFlatIP(vectors.shape[1])
    lists = max(1, min(_IVF_LISTS, len(vectors) // 40))
    ivf = _faiss.IndexIVFFlat(quantizer, vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.seed = seed
    ivf.train(vectors)
    ivf.add(vectors)
    generator = np.random.default_rng(seed)
    num_categories = len(category_offsets) - 1
    rows: list[SearchRow] = []
    for wanted in allowed:
        marked = np.zeros(num_categories + 1, np.bool_)
        marked[1 + generator.choice(num_categories, min(wanted, num_categories), replace=False)] = True
        mask = np.zeros(len(vectors), np.bool_)
        mask[: category_offsets[-1]] = np.repeat(marked[1:], np.diff(category_offsets))
        # The parameters point to the selector, and it to the bits: both stay named.
        bits = np.packbits(mask, bitorder="little")
        selector = _faiss.IDSelectorBitmap(bits)
        slices = _slices(vectors, mask, k)
        exact = [slices(query) for query in queries]
        methods: dict[str, _Search] = {_EXACT: slices}
        methods[f"HNSW{_HNSW_LINKS} + selector"] = _searcher(
            hnsw, k, _faiss.SearchParametersHNSW(sel=selector, efSearch=max(64, k))
        )
        for probes in _PROBES:
            parameters = _faiss.SearchParametersIVF(sel=selector, nprobe=probes)
            methods[f"IVF{lists}, {probes} probes + selector"] = _searcher(ivf, k, parameters)
        for name, method in methods.items():
            milliseconds, recall = _measure(method, queries, exact)
            rows.append(SearchRow(name, int(marked.sum()), int(mask.sum()), milliseconds, recall))
    return rows


def _slices(vectors: NDArray[np.float32], mask: NDArray[np.bool_], k: int) -> _Search:
    """Make the exact search of the rows that a mask marks, run of rows by run."""
    edges = np.diff(mask.astype(np.int8), prepend=0, append=0)
    runs = list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))
    rows = np.flatnonzero(mask)

    def search(query: NDArray[np.float32]) -> NDArray[np.int64]:
        scores = np.empty(len(rows), np.float32)
        at = 0
        for start, end in runs:
            np.dot(vectors[start:end], query, out=scores[at : at + end - start])
            at += end - start
        return rows[best(scores, k)]

    return search


def _searcher(index: Any, k: int, parameters: Any) -> _Search:
    def search(query: NDArray[np.float32]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(query[None], k, params=parameters)[1][0]
        return found[found >= 0]

    return search


def _measure(method: _Search, queries: NDArray[np.float32], exact: list[NDArray[np.int64]]) -> tuple[float, float]:
    """Time a method, ms a query (median), and tell how much of what is exact it found."""
    times, recalls = [], []
    for query, wanted in zip(queries, exact, strict=True):
        begin = time.perf_counter()
        found = method(query)
        times.append(time.perf_counter() - begin)
        if len(wanted):
            recalls.append(len(np.intersect1d(found, wanted)) / len(wanted))
    return float(np.median(times)) * 1e3, float(np.mean(recalls))


def _table(title: str, rows: Sequence[SearchRow]) -> list[str]:
    exact = {row.categories: row.milliseconds for row in rows if row.method == _EXACT}
    return [
        "",
        f"## {title}",
        "",
        f"| categories allowed | rows | method | ms a query (median) | ÷ exact slices | recall@{_K} |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r.categories} | {r.rows:,} | {r.method} | {r.milliseconds:.3f} "
            f"| {r.milliseconds / exact[r.categories]:.2f} | {r.recall:.3f} |"
            for r in rows
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
