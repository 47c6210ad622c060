"""Search inside a few categories: exact slices against HNSW and IVF with a selector."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from serendipity.channel.snapshot.vectors import ItemVectors, RowRanges

# The stubs in the wheel miss what its Python layer adds to constructors.
_faiss: Any = faiss

_HNSW_LINKS = 32
_IVF_LISTS = 512
"""At most; FAISS wants some 40 vectors a list."""
_PROBES = (16, 64)


@dataclass(frozen=True)
class SearchRow:
    """One method at one number of allowed categories. milliseconds: median a query; recall: against exact search."""

    method: str
    categories: int
    rows: int
    milliseconds: float
    recall: float


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
    items = ItemVectors(vectors)
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
        ranges = RowRanges.of_categories(marked, category_offsets)
        mask = np.zeros(len(vectors), np.bool_)
        mask[ranges.rows()] = True
        bits = np.packbits(mask, bitorder="little")
        selector = _faiss.IDSelectorBitmap(bits)
        exact = [items.search_exactly(query[None], k, ranges)[0].rows for query in queries]

        def slices(query: NDArray[np.float32], ranges: RowRanges = ranges) -> NDArray[np.int64]:
            return items.search_exactly(query[None], k, ranges)[0].rows

        methods: dict[str, Callable[[NDArray[np.float32]], NDArray[np.int64]]] = {"exact category slices": slices}
        methods[f"HNSW{_HNSW_LINKS} + selector"] = _searcher(
            hnsw, k, _faiss.SearchParametersHNSW(sel=selector, efSearch=max(64, k))
        )
        for probes in _PROBES:
            parameters = _faiss.SearchParametersIVF(sel=selector, nprobe=probes)
            methods[f"IVF{lists}, {probes} probes + selector"] = _searcher(ivf, k, parameters)
        for name, method in methods.items():
            milliseconds, recall = _measure(method, queries, exact)
            rows.append(SearchRow(name, int(marked.sum()), len(ranges), milliseconds, recall))
    return rows


def _searcher(index: Any, k: int, parameters: Any) -> Callable[[NDArray[np.float32]], NDArray[np.int64]]:
    def search(query: NDArray[np.float32]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(query[None], k, params=parameters)[1][0]
        return found[found >= 0]

    return search


def _measure(
    method: Callable[[NDArray[np.float32]], NDArray[np.int64]],
    queries: NDArray[np.float32],
    exact: list[NDArray[np.int64]],
) -> tuple[float, float]:
    times, recalls = [], []
    for query, best in zip(queries, exact, strict=True):
        begin = time.perf_counter()
        found = method(query)
        times.append(time.perf_counter() - begin)
        if len(best):
            recalls.append(len(np.intersect1d(found, best)) / len(best))
    return float(np.median(times)) * 1e3, float(np.mean(recalls))
