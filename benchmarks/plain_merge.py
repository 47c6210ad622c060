"""How the channel makes one list of all sources' candidates, written plainly, for plain stack and floor: known users,
STRICT, nothing bounded and nothing explored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.stored import Node, Stored, StoredUser
from serendipity import layout
from serendipity.novelty import unexpectedness
from serendipity.v1 import channel_pb2

INTEREST = channel_pb2.SOURCE_INTEREST
COLLABORATIVE = channel_pb2.SOURCE_COLLABORATIVE
GROUP = channel_pb2.SOURCE_GROUP
GRAPH = channel_pb2.SOURCE_GRAPH

CATEGORY_SHARE = 0.3
"""As the channel's settings have it."""

_SOURCES = (INTEREST, COLLABORATIVE, GROUP, GRAPH)
_FUSION_RANK = 60.0
_RANKED_PER_WANTED, _LEAST_RANKED = 1.5, 200
_GAMMA, _LEAST_UNEXPECTED = 2.0, 0.05
_NEVER_DAYS, _DAY = 3_650.0, 86_400.0
"""As of the channel's scorer."""


@dataclass(frozen=True)
class Ranked:
    """Candidates as columns, best first: item rows, probabilities, sources that rank each highest, their raw scores."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    sources: NDArray[np.int64]
    raw: NDArray[np.float32]


class PlainMerge:
    """Ranks by each source, fuses ranks, asks the snapshot's model."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._spec = stored.manifest.merge
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(stored.merge_model, options) if self._spec.id else None

    def rank(self, user: StoredUser, rows: NDArray[np.int64], scores: NDArray[np.float32], wanted: int) -> Ranked:
        """Rank rows, [m] ascending. scores: [m, 1 + interests] by the user's vectors; wanted: of each source."""
        alignments = np.zeros(len(self._stored.offsets), np.float32)
        alignments[[category.number for category in user.novel]] = [category.alignment for category in user.novel]
        aligned = alignments[self._stored.item_categories[rows]]
        raw = np.zeros((len(rows), len(_SOURCES)), np.float32)
        found = np.zeros(raw.shape, np.bool_)
        found[:, 1] = True
        raw[:, 1] = scores[:, 0]
        if len(user.interests):
            raw[:, 0], found[:, 0] = scores[:, 1:].max(axis=1), True
        raw[:, 2], found[:, 2] = aligned * np.logaddexp(np.float32(0), scores[:, 0]), aligned > 0
        if user.of_graph is not None:
            raw[:, 3] = self._stored.graph_vectors[rows] @ user.of_graph
            found[:, 3] = raw[:, 3] > 0
        ranks = np.full(raw.shape, np.inf)
        for j in range(len(_SOURCES)):
            at = np.flatnonzero(found[:, j])
            first = at[np.argsort(-raw[at, j], kind="stable")[:wanted]]
            ranks[first, j] = np.arange(len(first))
        fused = (_FUSION_RANK / (_FUSION_RANK + 1 + ranks)).mean(axis=1)
        order = np.argsort(-fused, kind="stable")[: max(int(wanted * _RANKED_PER_WANTED), _LEAST_RANKED)]
        order = order[fused[order] > 0]
        rows, raw, ranks, fused = rows[order], raw[order], ranks[order], fused[order]
        columns = self._columns(user, rows, raw, ranks, aligned[order])
        probabilities = fused.astype(np.float32)
        if self._session and len(rows):
            features = np.stack([columns[name] for name in self._spec.features], axis=1).astype(np.float32)
            probabilities = self._session.run(None, {"features": features})[0][:, 0]
        value = probabilities * np.maximum(columns["unexpectedness"], _LEAST_UNEXPECTED) ** (
            _GAMMA * self._spec.surprise
        )
        best, source = np.argsort(-value, kind="stable"), _source_of(rows, ranks, user.interests)
        return Ranked(rows[best], probabilities[best], np.array(_SOURCES)[source[best]], raw[best, source[best]])

    def _columns(
        self,
        user: StoredUser,
        rows: NDArray[np.int64],
        raw: NDArray[np.float32],
        ranks: NDArray[np.float64],
        aligned: NDArray[np.float32],
    ) -> dict[str, NDArray[np.float32]]:
        """Features of rows by name, but for those that no model reads."""
        stored, inputs = self._stored, user.inputs
        known = inputs.long_categories[0] > 0
        numbers = inputs.long_categories[0][known]
        clicks = np.zeros(len(stored.category_vectors), np.float32)
        days = np.full(len(clicks), _NEVER_DAYS, np.float32)
        clicks[numbers] = inputs.long_counts[0][known]
        days[numbers] = np.minimum(inputs.long_ages[0][known] / _DAY, _NEVER_DAYS)
        categories = stored.item_categories[rows]
        columns = {
            "unexpectedness": unexpectedness(stored.category_vectors, clicks)[categories],
            "novel": np.ones(len(rows), np.float32),
            "alignment": aligned,
            "category_clicks": np.log1p(clicks[categories]),
            "category_days": np.log1p(days[categories]),
            **dict(zip(layout.ITEM_STATISTICS_COLUMNS, stored.item_statistics[rows].T, strict=True)),
        }
        for j, source in enumerate(_SOURCES):
            name = channel_pb2.Source.Name(source).removeprefix("SOURCE_").lower()
            columns[f"{name}_score"] = raw[:, j]
            columns[f"{name}_reciprocal_rank"] = (1 / (1 + ranks[:, j])).astype(np.float32)
        return columns


def _source_of(rows: NDArray[np.int64], ranks: NDArray[np.float64], interests: list[Node]) -> NDArray[np.int64]:
    """Column of the source that ranks each row highest, [m], interests last where none is grounded in it."""
    grounded = np.zeros(len(rows), np.bool_)
    for node in interests:
        for start, end in zip(node.starts, node.ends, strict=True):
            grounded |= (start <= rows) & (rows < end)
    best = np.where(grounded, ranks.argmin(axis=1), 1 + ranks[:, 1:].argmin(axis=1))
    return np.where(np.isinf(ranks[:, 1:]).all(axis=1), 0, best)


def select(categories: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Choose positions of candidates that come best first, by category: few of each, unless the answer goes short."""
    within = place_in_category(categories) < max(1, math.ceil(CATEGORY_SHARE * count))
    return np.sort(np.concatenate([np.flatnonzero(within), np.flatnonzero(~within)])[:count])


def place_in_category(categories: NDArray[np.int32]) -> NDArray[np.int64]:
    """Tell, of each element, how many of its category come before it."""
    order = np.argsort(categories, kind="stable")
    ordered = categories[order]
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return places
