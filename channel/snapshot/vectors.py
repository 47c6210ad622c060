"""Search among the item vectors, inside the rows a user may be shown.

Vectors are sorted by top-level category, so a set of categories is a few contiguous row ranges, and searching
them exactly is one BLAS product per range. Measured on one core, 90,000 × 64 float32, 181 of 303 categories allowed
(52,385 rows in 71 ranges), k = 60, milliseconds for 1 and for 11 queries:

    ranges by BLAS, k best by a sampled threshold (used here)   0.57    4.6     recall 1
    ranges by BLAS, k best by partition                         1.1     9.5     recall 1
    faiss flat with a bitmap selector                           0.55    8.4     recall 1
    IVF512, 16 probes, bitmap selector                          0.05    0.8     approximate
    IVF512, 64 probes, bitmap selector                          0.13    2.4     approximate

So ranges are searched exactly, and the manifest asks for IVF only where a catalogue is too large for that.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable

# The stubs in the wheel miss what its Python layer adds to constructors.
_faiss: Any = faiss

_SAMPLING = 16
"""One score in so many is looked at to guess the k-th best."""

_EXACT_BELOW = 100_000
"""Allowed rows up to which IVF is not asked. Where few are allowed its lists hold next to none of them: of 300,000
rows with 10 % allowed, 128 of 2,048 probes recall 0.12 to 0.57 in 3.0 ms (10 queries), the exact search 1 in 2.6 ms.
With 60 % allowed IVF recalls 0.98 in 5.8 ms where the exact search takes 14.8 ms."""

_GPU_MOST = 2_048
"""Neighbours a GPU index returns at most."""


@dataclass(frozen=True)
class RowRanges:
    """Item rows [starts[i], ends[i]), ascending and apart. starts, ends: [m] int64."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return int((self.ends - self.starts).sum())

    @classmethod
    def of_categories(cls, allowed: NDArray[np.bool_], category_offsets: NDArray[np.int64]) -> RowRanges:
        """Rows of the marked categories. allowed: [c + 1] bool by category number; category_offsets: [c + 1]."""
        edges = np.diff(np.concatenate(([False], allowed[1:], [False])).astype(np.int8))
        starts, ends = category_offsets[np.flatnonzero(edges == 1)], category_offsets[np.flatnonzero(edges == -1)]
        filled = ends > starts
        return cls(starts[filled], ends[filled])

    @classmethod
    def union(cls, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> RowRanges:
        """Rows of ranges that may overlap each other, in any order."""
        united = _united(starts, ends)
        return cls(np.array([a for a, _ in united], np.int64), np.array([b for _, b in united], np.int64))

    def within(self, other: RowRanges) -> RowRanges:
        """Rows that are in other ranges as well."""
        pieces = [
            (max(start, int(self.starts[i])), min(end, int(self.ends[i])))
            for start, end in zip(other.starts.tolist(), other.ends.tolist(), strict=True)
            for i in range(int(np.searchsorted(self.ends, start, side="right")), int(np.searchsorted(self.starts, end)))
        ]
        return RowRanges(np.array([a for a, _ in pieces], np.int64), np.array([b for _, b in pieces], np.int64))

    def rows(self) -> NDArray[np.int64]:
        """All rows, ascending."""
        lengths = self.ends - self.starts
        shifts = self.starts - (np.cumsum(lengths) - lengths)
        rows: NDArray[np.int64] = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(shifts, lengths)
        return rows


@dataclass(frozen=True)
class Hits:
    """The best rows of one query, best first. rows: [m] int64; scores: [m] float32 inner products."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class ItemVectors:
    """Item vectors of one snapshot, memory-mapped. Searches are thread-safe and release the GIL."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        ivf: Any = None,
        num_probes: int = 1,
        gpu: Any = None,
        exact_below: int = _EXACT_BELOW,
    ) -> None:
        """vectors: [n, d] float32; ivf: FAISS IVF index over the same rows; gpu: FAISS index on a GPU, likewise.

        exact_below: allowed rows up to which a search is exact whatever index there is.
        """
        self.vectors = vectors
        self._ivf = ivf
        self._num_probes = num_probes
        self._gpu = gpu
        self._exact_below = exact_below
        # GPU indexes keep scratch memory of their own: not thread-safe, not even for reads.
        self._gpu_lock = threading.Lock()

    @classmethod
    def open(cls, directory: Path, kind: str, num_probes: int, gpu: bool = False) -> ItemVectors:
        """Map a snapshot's vectors; kind is "flat" or "ivf", as the manifest says.

        Raises SnapshotUnavailable when a file is missing or is not what the manifest says, or when a GPU is asked
        for and there is none.
        """
        path = directory / layout.ITEM_VECTORS
        try:
            vectors = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise SnapshotUnavailable(f"{path}: cannot be mapped ({error}); expected [n, d] float32") from error
        if vectors.dtype != np.float32 or vectors.ndim != 2:
            raise SnapshotUnavailable(f"{path}: found {vectors.dtype} {vectors.shape}, expected [n, d] float32")
        # A plain array over the mapping: slicing numpy's memmap class costs a Python call each time.
        vectors = np.asarray(vectors)
        if kind not in ("flat", "ivf"):
            raise SnapshotUnavailable(f"{directory}: vector_index.kind: found {kind!r}, expected 'flat' or 'ivf'")
        return cls(
            vectors,
            ivf=_read_ivf(directory, vectors.shape) if kind == "ivf" else None,
            num_probes=num_probes,
            gpu=_gpu_index(vectors) if gpu else None,
        )

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)

    def search_exactly(
        self, queries: NDArray[np.float32], k: int, ranges: RowRanges, unavailable: NDArray[np.bool_] | None = None
    ) -> list[Hits]:
        """Find the k best rows of the ranges for each query, exactly.

        queries: [q, d] float32; unavailable: [n] bool, rows to leave out. Returns fewer than k hits only where
        the ranges hold fewer.
        """
        if not len(ranges) or not len(queries) or k <= 0:
            return [Hits(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        # [rows, q], not [q, rows]: BLAS writes whole blocks then, which takes 2.5 ms for 10 queries instead of 3.8 ms.
        scores = np.empty((len(ranges), len(queries)), np.float32)
        columns = np.ascontiguousarray(queries.T)
        at = 0
        for start, end in zip(ranges.starts.tolist(), ranges.ends.tolist(), strict=True):
            np.matmul(self.vectors[start:end], columns, out=scores[at : at + end - start])
            at += end - start
        rows = ranges.rows()
        if unavailable is not None:
            scores[unavailable[rows]] = -np.inf
        return [_best(scores[:, j], rows, k) for j in range(len(queries))]

    def search_slices(
        self,
        query: NDArray[np.float32],
        k: int,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        unavailable: NDArray[np.bool_],
    ) -> list[Hits]:
        """Find the k best rows of each slice [starts[i], ends[i]) for one query, exactly; hits come in no order.

        query: [d] float32; unavailable: [n] bool, rows to leave out. For many small slices: ten of 300 × 64 take
        0.15 ms of a core, and 0.5 to 0.8 ms by `search_exactly` one after another.
        """
        hits = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            scores = self.vectors[start:end] @ query
            scores[unavailable[start:end]] = -np.inf
            at = np.argpartition(scores, len(scores) - k)[-k:] if 0 < k < len(scores) else np.arange(len(scores))
            # Neither -inf nor NaN.
            at = at[scores[at] > -np.inf]
            hits.append(Hits(at + start, scores[at]))
        return hits

    def search_openly(
        self,
        queries: NDArray[np.float32],
        k: int,
        ranges: RowRanges,
        unavailable: NDArray[np.bool_] | None = None,
    ) -> list[Hits]:
        """Find the k best rows of the ranges for each query, by the index where there is one and it is worth it."""
        if self._gpu is not None:
            return self._search_gpu(queries, k, ranges, unavailable)
        if self._ivf is not None and len(ranges) > self._exact_below:
            return self._search_ivf(queries, k, ranges, unavailable)
        return self.search_exactly(queries, k, ranges, unavailable)

    def _search_ivf(
        self, queries: NDArray[np.float32], k: int, ranges: RowRanges, unavailable: NDArray[np.bool_] | None
    ) -> list[Hits]:
        bits = np.packbits(_mask(len(self), ranges, unavailable), bitorder="little")
        # The probes of the manifest were measured with every row allowed; the fewer are, the farther they lie apart.
        num_probes = min(self._ivf.nlist, math.ceil(self._num_probes * len(self) / len(ranges)))
        # Parameters of its own for every query: `nprobe` of a shared index must not be changed. They point to the
        # selector, and it to the bits, so these stay named until the search is over.
        selector = _faiss.IDSelectorBitmap(bits)
        params = _faiss.SearchParametersIVF(sel=selector, nprobe=num_probes)
        scores, rows = self._ivf.search(np.ascontiguousarray(queries, np.float32), k, params=params)
        return [Hits(r[r >= 0], s[r >= 0]) for r, s in zip(rows, scores, strict=True)]

    def _search_gpu(
        self, queries: NDArray[np.float32], k: int, ranges: RowRanges, unavailable: NDArray[np.bool_] | None
    ) -> list[Hits]:
        # GPU indexes take no selector: fetch more, keep what is allowed, and search exactly where too little is left.
        allowed = _mask(len(self), ranges, unavailable)
        fetched = min(_GPU_MOST, len(self))
        with self._gpu_lock:
            scores, rows = self._gpu.search(np.ascontiguousarray(queries, np.float32), fetched)
        hits = [Hits(r[allowed[r]][:k], s[allowed[r]][:k]) for r, s in zip(rows, scores, strict=True)]
        wanted = min(k, int(allowed.sum()))
        short = [i for i, hit in enumerate(hits) if len(hit.rows) < wanted]
        for i, hit in zip(short, self.search_exactly(queries[short], k, ranges, unavailable), strict=True):
            hits[i] = hit
        return hits


def _best(scores: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Hits:
    """Pick the k best of one query's scores; -inf and NaN never."""
    if len(scores) > _SAMPLING * k:
        # A sample's j-th best is, nearly always, a little below the k-th best of all: what lies above it is few.
        sample = scores[::_SAMPLING]
        j = min(len(sample), k // _SAMPLING + 12)
        at = np.flatnonzero(scores >= np.partition(sample, len(sample) - j)[len(sample) - j])
        if len(at) >= k:
            scores, rows = scores[at], rows[at]
    finite = np.isfinite(scores)
    if not finite.all():
        scores, rows = scores[finite], rows[finite]
    if len(scores) > k:
        at = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        scores, rows = scores[at], rows[at]
    order = np.lexsort((rows, -scores))
    return Hits(rows[order], scores[order])


def _mask(num_rows: int, ranges: RowRanges, unavailable: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    mask = np.zeros(num_rows, np.bool_)
    for start, end in zip(ranges.starts.tolist(), ranges.ends.tolist(), strict=True):
        mask[start:end] = True
    if unavailable is not None:
        mask &= ~unavailable
    return mask


def _united(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ascending ranges that cover the same rows, each row once."""
    united: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if start >= end:
            continue
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def _read_ivf(directory: Path, shape: tuple[int, ...]) -> Any:
    path = directory / layout.ITEM_INDEX
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise SnapshotUnavailable(f"{path}: cannot be read ({error}); expected an IVF index") from error
    if (index.ntotal, index.d) != shape or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise SnapshotUnavailable(
            f"{path}: found {index.ntotal} × {index.d}, metric {index.metric_type}; expected {shape[0]} × {shape[1]}, "
            f"inner product ({faiss.METRIC_INNER_PRODUCT})"
        )
    return index


def _gpu_index(vectors: NDArray[np.float32]) -> Any:
    if not hasattr(faiss, "StandardGpuResources") or not _faiss.get_num_gpus():
        raise SnapshotUnavailable("gpu: this process has no GPU that FAISS can use; install faiss-gpu or switch it off")
    index = _faiss.index_cpu_to_gpu(_faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(vectors.shape[1]))
    index.add(np.ascontiguousarray(vectors))
    return index
