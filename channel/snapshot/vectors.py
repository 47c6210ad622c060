"""Search among the item vectors, inside the rows a user may be shown.

Vectors are sorted by top-level category, so a set of categories is a few contiguous row ranges, and searching them
exactly is one BLAS product per range. Measured on one core, 92,000 × 80 float32, one query, 74,000 rows allowed,
milliseconds:

    ranges by BLAS, 1,000 best by a sampled threshold   1.2    recall 1
    ONNX Runtime MatMulInteger, 8 bits, all rows        0.8
    faiss scalar quantizer, 8 bits, all rows            1.7
    faiss IVF flat, 121 of 1,070 lists                  0.9    0.95 of the best 100
    faiss IVF of 4-bit codes, lists by category         0.6    0.998 of the best 200 (used for 50,000 items and more)

Few rows are searched exactly whatever index there is, and so is what an index leaves short.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.arrays import map_array
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.snapshot.row_ranges import OwnedRanges, RowRanges
from serendipity.inverted_lists import InvertedLists, prepare, search_lists
from serendipity.v1 import records_pb2

# The stubs in the wheel miss what its Python layer adds.
_faiss: Any = faiss

_SAMPLING = 16
"""One score in so many is looked at to guess the k-th best."""

_EXACT_BELOW = 30_000
"""Allowed rows up to which an index is not asked: scanning them takes about as long."""

_GPU_MOST = 2_048
"""Neighbours a GPU index returns at most."""


class ItemVectors:
    """Item vectors of one snapshot, memory-mapped. Searches are thread-safe and release the GIL."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        ivf: InvertedFile | None = None,
        gpu: Any = None,
        exact_below: int = _EXACT_BELOW,
    ) -> None:
        """vectors: [n, d] float32; ivf: index over the same rows; gpu: FAISS index on a GPU, likewise.

        exact_below: allowed rows up to which a search is exact whatever index there is.
        """
        self.vectors = vectors
        self._ivf = ivf
        self._gpu = gpu
        self._exact_below = exact_below
        # GPU indexes keep scratch memory of their own: not thread-safe, not even for reads.
        self._gpu_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        directory: Path,
        index: records_pb2.VectorIndex,
        gpu: bool = False,
        vectors_file: str = layout.ITEM_VECTORS,
        index_file: str = layout.ITEM_INDEX,
    ) -> ItemVectors:
        """Map a snapshot's vectors, with the index that the manifest describes.

        Raises SnapshotUnavailable when a file is missing or is not what the manifest says, or when a GPU is asked
        for and there is none.
        """
        try:
            vectors = map_array(directory / vectors_file, np.float32, 2)
        except ValueError as error:
            raise SnapshotUnavailable(str(error)) from error
        if index.kind not in ("flat", "ivf"):
            raise SnapshotUnavailable(f"{directory}: vector_index.kind: found {index.kind!r}, expected 'flat' or 'ivf'")
        return cls(
            vectors,
            ivf=InvertedFile.open(directory / index_file, index, vectors.shape) if index.kind == "ivf" else None,
            gpu=_gpu_index(vectors) if gpu else None,
        )

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.vectors.shape[1])

    def best(
        self,
        query: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_],
        ranges: RowRanges,
        unavailable: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Find the k best rows that may be shown, in no order; fewer only where fewer may be shown.

        query: [d]; allowed: [c + 1] bool by category number; ranges: the rows of these categories; unavailable: [n]
        bool, rows to leave out. Exact, unless there is an index and so many rows that it is worth asking: its k hold
        nearly all of the best third, to be scored exactly by the caller.
        """
        if not len(ranges):
            return np.empty(0, np.int64)
        if self._gpu is not None:
            rows = self._by_gpu(query, ranges)
        elif self._ivf is not None and len(ranges) > self._exact_below:
            spare = 2 if unavailable.any() else 1
            rows = self._ivf.search(query, min(spare * k, len(ranges)), allowed)
        else:
            return self._scan(query, k, ranges, unavailable)
        rows = rows[~unavailable[rows]][:k]
        return rows if len(rows) == k else self._scan(query, k, ranges, unavailable)

    def best_of_each(
        self,
        queries: NDArray[np.float32],
        k: int,
        pieces: OwnedRanges,
        unavailable: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Find the k best rows in the ranges of each owner by its own query, exactly, all in one array in no order.

        queries: [num_owners, d]. For many small slices: ten of 1,000 × 80 take 0.2 ms of a core.
        """
        found = []
        for start, end, owner in zip(pieces.starts.tolist(), pieces.ends.tolist(), pieces.owners.tolist(), strict=True):
            if end - start <= k:
                found.append(np.arange(start, end))
                continue
            scores = self.vectors[start:end] @ queries[owner]
            scores[unavailable[start:end]] = -np.inf
            found.append(start + np.argpartition(scores, len(scores) - k)[-k:])
        rows = np.concatenate(found) if found else np.empty(0, np.int64)
        available: NDArray[np.int64] = rows[~unavailable[rows]]
        return available

    def _scan(
        self, query: NDArray[np.float32], k: int, ranges: RowRanges, unavailable: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        scores = np.empty(len(ranges), np.float32)
        at = 0
        for start, end in zip(ranges.starts.tolist(), ranges.ends.tolist(), strict=True):
            np.matmul(self.vectors[start:end], query, out=scores[at : at + end - start])
            at += end - start
        if len(scores) > _SAMPLING * k:
            # A sample's j-th best is, nearly always, a little below the k-th best of all: what lies above it is few.
            sample = scores[::_SAMPLING]
            j = min(len(sample), k // _SAMPLING + 12)
            near = np.flatnonzero(scores >= np.partition(sample, len(sample) - j)[len(sample) - j])
            rows = ranges.rows_at(near)
            free = ~unavailable[rows]
            if int(free.sum()) >= k:
                return _largest(rows[free], scores[near[free]], k)
        rows = ranges.rows()
        free = ~unavailable[rows]
        return _largest(rows[free], scores[free], k)

    def _by_gpu(self, query: NDArray[np.float32], ranges: RowRanges) -> NDArray[np.int64]:
        """Ask for more than is wanted, since GPU indexes take no selector, and keep what is in the ranges."""
        with self._gpu_lock:
            _, (rows,) = self._gpu.search(np.ascontiguousarray(query[None]), min(_GPU_MOST, len(self.vectors)))
        at = np.searchsorted(ranges.starts, rows, side="right") - 1
        inside: NDArray[np.int64] = rows[(at >= 0) & (rows < ranges.ends[at])]
        return inside


class InvertedFile:
    """A FAISS IVF index whose lists are kept apart by top-level category."""

    def __init__(self, index: Any, category_offsets: NDArray[np.int64], num_probes: int) -> None:
        """index: IVF by inner product; category_offsets: [c + 1] lists of each category."""
        prepare(index)
        num_lists = int(index.nlist)
        self._index = index
        self._lists = InvertedLists(
            np.ascontiguousarray(faiss.downcast_index(index.quantizer).reconstruct_n(0, num_lists)),
            np.array([index.invlists.list_size(i) for i in range(num_lists)], np.int64),
            category_offsets,
        )
        self._least = num_probes * int(index.ntotal) // num_lists

    @classmethod
    def open(cls, path: Path, described: records_pb2.VectorIndex, shape: tuple[int, ...]) -> InvertedFile:
        """Read the index of a snapshot. Raises SnapshotUnavailable where it is not what the manifest says."""
        try:
            index: Any = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SnapshotUnavailable(f"{path}: cannot be read ({error}); expected an IVF index") from error
        offsets = np.array(described.category_list_offsets, np.int64)
        if index.ntotal > shape[0] or index.d != shape[1] or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise SnapshotUnavailable(
                f"{path}: found {index.ntotal} × {index.d}, metric {index.metric_type}; expected at most {shape[0]} × "
                f"{shape[1]}, inner product ({faiss.METRIC_INNER_PRODUCT})"
            )
        if getattr(index, "nlist", 0) != offsets[-1]:
            found = getattr(index, "nlist", 0)
            raise SnapshotUnavailable(f"{path}: found {found} lists, expected {offsets[-1]} by the manifest")
        return cls(index, offsets, described.num_probes)

    def search(self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Find about the k best rows of the allowed categories, best first. allowed: [c + 1] bool by number."""
        return search_lists(self._index, query, self._lists.nearest(query, allowed, max(self._least, k)), k)


def _largest(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Keep the rows of the k largest scores; NaN counts as the largest, and whoever scores the rows sees it."""
    return rows if len(rows) <= k else rows[np.argpartition(scores, len(scores) - k)[len(scores) - k :]]


def _gpu_index(vectors: NDArray[np.float32]) -> Any:
    if not hasattr(faiss, "StandardGpuResources") or not _faiss.get_num_gpus():
        raise SnapshotUnavailable("gpu: this process has no GPU that FAISS can use; install faiss-gpu or switch it off")
    index = _faiss.index_cpu_to_gpu(_faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(vectors.shape[1]))
    index.add(np.ascontiguousarray(vectors))
    return index
