"""How candidates of all sources become one list: what the snapshot's builder learned, with what it reads of items."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serendipity import layout
from serendipity.arrays import map_array
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class Merge:
    """A merge model, what it reads of n items and c categories, and what sources have earned.

    id: empty where there is no model; columns: names of the features it reads; surprise: of requests that set none;
    unearned: sources that are searched only to explore what they are worth; item_statistics: [n, S] float32, columns
    layout.ITEM_STATISTICS_COLUMNS; category_vectors: [c + 1, k] float32 of length 1 or 0; popular: [p] int64 rows of
    items with a top-level category, most clicked lately first; popular_categories: [p] theirs.
    """

    id: str
    columns: tuple[str, ...]
    surprise: float
    unearned: frozenset[int]
    item_statistics: NDArray[np.float32]
    category_vectors: NDArray[np.float32]
    popular: NDArray[np.int64]
    popular_categories: NDArray[np.int64]
    _session: Any = field(default=None, repr=False)

    @classmethod
    def open(cls, directory: Path, manifest: records_pb2.Manifest) -> Merge:
        """Open a snapshot's. Raises SnapshotUnavailable naming the file that is missing or of another shape."""
        spec, num_items, num_categories = manifest.merge, manifest.counts.items, len(manifest.categories)
        width = len(layout.ITEM_STATISTICS_COLUMNS)
        if layout.ITEM_STATISTICS in manifest.checksums:
            statistics = map_array(directory / layout.ITEM_STATISTICS, np.float32, 2)
            vectors = map_array(directory / layout.CATEGORY_VECTORS, np.float32, 2)
        else:
            statistics, vectors = (
                np.zeros((num_items, width), np.float32),
                np.zeros((num_categories + 1, 1), np.float32),
            )
        if unknown := set(spec.features) - set(FEATURE_NAMES):
            raise SnapshotUnavailable(
                f"{directory / layout.MANIFEST}: merge.features: found {', '.join(sorted(unknown))}, expected some of "
                f"{', '.join(FEATURE_NAMES)}"
            )
        for name, found, expected in (
            (layout.ITEM_STATISTICS, statistics.shape, (num_items, width)),
            (layout.CATEGORY_VECTORS, vectors.shape[:1], (num_categories + 1,)),
        ):
            if found != expected:
                raise SnapshotUnavailable(f"{directory / name}: found shape {found}, expected {expected}")
        offsets = np.array(manifest.category_offsets, np.int64)
        popular = _popular(statistics[: offsets[-1]])
        return cls(
            id=spec.id,
            columns=tuple(spec.features),
            surprise=spec.surprise,
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
        probabilities: NDArray[np.float32] = found[:, 0]
        return probabilities


_MOST_POPULAR = 5_000


def _popular(statistics: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows of the most clicked items of the last 28 days."""
    lately = statistics[:, layout.ITEM_STATISTICS_COLUMNS.index("item_clicks_28d")]
    order: NDArray[np.int64] = np.argsort(-lately, kind="stable")[:_MOST_POPULAR]
    return order[lately[order] > 0]


def _session(path: Path, width: int) -> Any:
    """Open a model. Raises SnapshotUnavailable when it is none, or reads another number of features."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.get_inputs()[0].shape[1]
    except Exception as error:
        # ONNX Runtime raises kinds of its own for what is missing, cut off or no ONNX.
        raise SnapshotUnavailable(f"{path}: cannot be loaded ({error}); expected a merge model as ONNX") from error
    if found != width:
        raise SnapshotUnavailable(f"{path}: found {found} features, expected {width} by the manifest")
    return session
