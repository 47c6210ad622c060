"""How candidates of all sources become one list: what the snapshot's builder learned, with what it reads of items."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serendipity import layout
from serendipity.arrays import map_array
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.rank_features import FEATURE_NAMES, popularity
from serendipity.v1 import channel_pb2, records_pb2


@dataclass(frozen=True)
class Merge:
    """A merge model, what it reads of n items and c categories, and what sources have earned.

    id: empty where there is no model; columns: names of the features it reads; surprise: of requests that set none;
    popularity: 0 to 1, what the rank by it counts without a model; unearned: sources that are searched only to explore
    what they are worth; item_statistics: [n, S] float32, columns layout.ITEM_STATISTICS_COLUMNS; category_vectors:
    [c + 1, k] float32 of length 1 or 0; popular: [p] int64 rows of items with a top-level category, most popular first;
    popular_categories: [p] theirs.
    """

    id: str
    columns: tuple[str, ...]
    surprise: float
    popularity: float
    unearned: frozenset[int]
    item_statistics: NDArray[np.float32]
    category_vectors: NDArray[np.float32]
    popular: NDArray[np.int64]
    popular_categories: NDArray[np.int64]
    _session: Any = field(default=None, repr=False)

    @cached_property
    def positions(self) -> list[int]:
        """Columns of the rank features that the model reads, in its order."""
        return [FEATURE_NAMES.index(name) for name in self.columns]

    @classmethod
    def open(cls, directory: Path, manifest: records_pb2.Manifest) -> Merge:
        """Open a snapshot's. Raises SnapshotUnavailable naming what is missing or is not what it should be."""
        spec = manifest.merge
        _check_spec(directory / layout.MANIFEST, spec)
        width = len(layout.ITEM_STATISTICS_COLUMNS)
        statistics = _array(directory / layout.ITEM_STATISTICS, manifest.counts.items, width)
        vectors = _array(directory / layout.CATEGORY_VECTORS, len(manifest.categories) + 1, None)
        offsets = np.array(manifest.category_offsets, np.int64)
        popular = _popular(statistics[: offsets[-1]])
        return cls(
            id=spec.id,
            columns=tuple(spec.features),
            surprise=spec.surprise,
            popularity=spec.popularity,
            unearned=frozenset(int(worth.source) for worth in spec.sources if not worth.earned),
            item_statistics=statistics,
            category_vectors=vectors,
            popular=popular,
            popular_categories=np.searchsorted(offsets, popular, side="right"),
            _session=_session(directory / layout.MERGE_MODEL, len(spec.features)) if spec.id else None,
        )

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map features of m candidates, [m, F] in the order of `columns`, to P(interaction within the horizon), [m]."""
        (found,) = self._session.run(None, {"features": features})
        # A model that gives nonsense for some candidates must not hand it on: they are the least likely.
        probabilities: NDArray[np.float32] = np.clip(np.nan_to_num(found[:, 0], nan=0.0), 0, 1)
        return probabilities


_MOST_POPULAR = 5_000
_TRIED = 3


def _popular(statistics: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows of the most popular items."""
    clicks = popularity(statistics)
    order: NDArray[np.int64] = np.argsort(-clicks, kind="stable")[:_MOST_POPULAR]
    return order[clicks[order] > 0]


def _array(path: Path, rows: int, width: int | None) -> NDArray[np.float32]:
    found = map_array(path, np.float32, 2)
    if found.shape != (rows, width or found.shape[1]):
        raise SnapshotUnavailable(f"{path}: found shape {found.shape}, expected {(rows, width or 'any')}")
    if not np.isfinite(found).all():
        raise SnapshotUnavailable(f"{path}: found values that are not finite, expected finite ones")
    return found


def _check_spec(path: Path, spec: records_pb2.MergeSpec) -> None:
    """Raise SnapshotUnavailable naming the field that is not what it should be."""
    features, sources = list(spec.features), {int(worth.source) for worth in spec.sources}
    known = set(channel_pb2.Source.values()) - {channel_pb2.SOURCE_UNSPECIFIED, channel_pb2.SOURCE_COLLABORATIVE}
    for name, holds, found, expected in (
        ("features", set(features) <= set(FEATURE_NAMES), features, f"some of {', '.join(FEATURE_NAMES)}"),
        ("features", len(set(features)) == len(features), features, "each once"),
        ("surprise", 0 <= spec.surprise <= 1, spec.surprise, "0 to 1"),
        ("popularity", 0 <= spec.popularity <= 1, spec.popularity, "0 to 1"),
        ("sources", sources <= known, sorted(sources), f"some of {sorted(known)}"),
    ):
        if not holds:
            raise SnapshotUnavailable(f"{path}: merge.{name}: found {found}, expected {expected}")


def _session(path: Path, width: int) -> Any:
    """Open a model and try it. Raises SnapshotUnavailable when it is none, or is made for something else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"features": np.zeros((_TRIED, width), np.float32)})
    except Exception as error:
        # ONNX Runtime raises kinds of its own for what is missing, cut off, no ONNX, or fed with something else.
        why = " ".join(str(error).split())
        raise SnapshotUnavailable(
            f"{path}: cannot be used ({why}); expected a merge model as ONNX, {width} features to probabilities"
        ) from error
    if found.shape != (_TRIED, 1) or not ((found >= 0) & (found <= 1)).all():
        raise SnapshotUnavailable(
            f"{path}: found {found.ravel()[:3].tolist()} … of shape {found.shape} for {_TRIED} candidates, expected "
            f"probabilities of shape {(_TRIED, 1)}"
        )
    return session
