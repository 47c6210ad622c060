"""The index for open search: none where exact search is fast enough, inverted lists of short codes where it is not.

One query over 92,000 × 80 takes 1.2 ms of a core exactly and 0.6 ms by codes of four bits a dimension (FAISS's fast
scan), which hold 99.8 % of its best 200 among the 1,000 they find; those are scored exactly afterwards. The lists are
kept apart by top-level category, so that novelty restricts which lists are read and not what is thrown away of them
(see serendipity.inverted_lists): with lists over all categories, a user whose nearest categories are all known gets
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from serendipity.inverted_lists import SEARCHED, InvertedLists, prepare, search_lists
from serendipity.offline.configuration import Configuration
from serendipity.v1 import records_pb2

NUM_QUERIES = 256
"""Users that recall is measured on."""

SEED = 20_240_601
"""Seed of the clustering and of the sample."""

_TRAIN_POINTS = 64
"""Items the clustering is trained on, per list."""

_DEPTH = 100
_ITERATIONS = 10
_BITS = 4
_TRAIN_ROWS = 50_000

# The stubs in the wheel miss what its Python layer adds.
_faiss: Any = faiss


class IndexConfig(Configuration):
    """How the index for open search is chosen and built."""

    exact_below: Annotated[int, Field(ge=0)] = 50_000
    """Catalogues with fewer items get no index: they are searched exactly."""
    num_lists: Annotated[int, Field(ge=0)] = 0
    """Inverted lists, about, one a category at least; 0: the square root of the number of items."""
    min_recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Recall@100 against exact search that the number of probes is raised for, by a quarter at a time from 8."""


@dataclass(frozen=True)
class Queries:
    """What open search is measured with. vectors: [m, d] user vectors; allowed: [m, c + 1] bool, by category number."""

    vectors: NDArray[np.float32]
    allowed: NDArray[np.bool_]


@dataclass(frozen=True)
class BuiltIndex:
    """An index and what the manifest says about it; `index` is None where search is exact."""

    index: faiss.Index | None
    description: records_pb2.VectorIndex


def build_index(
    item_vectors: NDArray[np.float32],
    category_offsets: NDArray[np.int64],
    queries: Queries,
    config: IndexConfig | None = None,
) -> BuiltIndex:
    """Choose and build the index for open search by inner product, and measure its recall@100.

    item_vectors: [n, d], sorted by category; category_offsets: [c + 1] rows. Recall is the mean over the queries that
    may be shown anything of |found ∩ exact| / min(100, allowed rows), 1 where there are none.
    """
    config = config or IndexConfig()
    n, dim = item_vectors.shape
    if n < max(config.exact_below, 2**_BITS) or not category_offsets[-1]:
        return BuiltIndex(None, records_pb2.VectorIndex(dim=dim, kind="flat", recall_at_100=1.0))
    wanted = min(config.num_lists or round(np.sqrt(n)), n)
    lists, list_of_row = _cluster(item_vectors, category_offsets, n / wanted, SEED)
    num_lists = len(lists.sizes)
    index = _index(item_vectors, lists, list_of_row, SEED)
    exact = [
        _exact(item_vectors, category_offsets, *query) for query in zip(queries.vectors, queries.allowed, strict=True)
    ]
    num_probes = min(8, num_lists)

    def recall() -> float:
        found = []
        for query, allowed, best in zip(queries.vectors, queries.allowed, exact, strict=True):
            if len(best):
                read = lists.nearest(query, allowed, max(SEARCHED, num_probes * n // num_lists))
                found.append(float(np.isin(best, search_lists(index, query, read, SEARCHED)).mean()))
        return float(np.mean(found)) if found else 1.0

    while (measured := recall()) < config.min_recall and num_probes < num_lists:
        num_probes = min(num_probes + num_probes // 4, num_lists)
    description = records_pb2.VectorIndex(
        dim=dim,
        kind="ivf",
        num_lists=num_lists,
        num_probes=num_probes,
        recall_at_100=measured,
        category_list_offsets=lists.category_offsets.tolist(),
    )
    return BuiltIndex(index, description)


def _cluster(
    vectors: NDArray[np.float32], category_offsets: NDArray[np.int64], list_size: float, seed: int
) -> tuple[InvertedLists, NDArray[np.int64]]:
    """Cluster each category into lists of about `list_size` items, and tell each row's list, −1 without one."""
    centroids: list[NDArray[np.float32]] = []
    list_of_row = np.full(len(vectors), -1, np.int64)
    offsets = [0]
    for start, end in zip(category_offsets[:-1].tolist(), category_offsets[1:].tolist(), strict=True):
        rows = np.ascontiguousarray(vectors[start:end])
        k = max(1, round(len(rows) / list_size)) if len(rows) else 0
        if k > 1:
            clustering = _faiss.Kmeans(
                vectors.shape[1],
                k,
                niter=_ITERATIONS,
                seed=seed,
                min_points_per_centroid=1,
                max_points_per_centroid=_TRAIN_POINTS,
            )
            clustering.train(rows)
            list_of_row[start:end] = offsets[-1] + clustering.index.search(rows, 1)[1][:, 0]
            centroids.append(np.array(clustering.centroids))
        elif k:
            list_of_row[start:end] = offsets[-1]
            centroids.append(rows.mean(axis=0, keepdims=True))
        offsets.append(offsets[-1] + k)
    sizes = np.bincount(list_of_row[list_of_row >= 0], minlength=offsets[-1])
    return InvertedLists(np.concatenate(centroids), sizes, np.array(offsets, np.int64)), list_of_row


def _index(
    vectors: NDArray[np.float32], lists: InvertedLists, list_of_row: NDArray[np.int64], seed: int
) -> faiss.Index:
    n, dim = vectors.shape
    quantizer = _faiss.IndexFlatIP(dim)
    quantizer.add(np.ascontiguousarray(lists.centroids))
    codes = _faiss.IndexIVFPQ(quantizer, dim, len(lists.sizes), dim, _BITS, faiss.METRIC_INNER_PRODUCT)
    codes.by_residual = False
    codes.pq.cp.seed = seed
    sample = np.random.default_rng(seed).choice(n, min(n, _TRAIN_ROWS), replace=False)
    codes.pq.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    codes.is_trained = True
    listed = np.flatnonzero(list_of_row >= 0)
    rows, assigned = np.ascontiguousarray(vectors[listed]), np.ascontiguousarray(list_of_row[listed])
    codes.add_core(len(listed), _faiss.swig_ptr(rows), _faiss.swig_ptr(listed), _faiss.swig_ptr(assigned))
    index: faiss.Index = _faiss.IndexIVFPQFastScan(codes)
    prepare(index)
    return index


def _exact(
    vectors: NDArray[np.float32],
    category_offsets: NDArray[np.int64],
    query: NDArray[np.float32],
    allowed: NDArray[np.bool_],
) -> NDArray[np.int64]:
    sizes = np.diff(category_offsets)
    rows = np.flatnonzero(np.repeat(allowed[1:], sizes))
    scores = vectors[rows] @ query
    best: NDArray[np.int64] = rows[np.argpartition(-scores, min(_DEPTH, len(rows)) - 1)[:_DEPTH]] if len(rows) else rows
    return best
