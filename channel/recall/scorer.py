"""Scores that compare across sources, and the features the host's own ranker gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.candidates import Candidates
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import Source
from serendipity.channel.snapshot.calibration import Calibration

NOT_FOUND = -1
"""Rank of an item in a source that did not find it."""

FEATURE_NAMES = (
    "relevance",
    "unexpectedness",
    "novel",
    "interest_weight",
    "alignment",
    "alignment_recent",
    *(f"{source.name.lower()}_{part}" for source in Source for part in ("score", "reciprocal_rank")),
)
"""Columns of the rank features. A source's score and reciprocal rank (1 for its best item) are 0 where it did not
find the item. alignment: of the item's category on the group's list, 0 where it is not on it; alignment_recent: how
many of the user's latest categories that list is for (m), −1 for the list of the default group, 0 again where the
category is not on it. Both are 0 where the request wants nothing of the group source: no list is read then."""

_OF_SOURCES = FEATURE_NAMES.index("alignment_recent") + 1


@dataclass(frozen=True)
class Scored:
    """Distinct items, best first; element i of every column is item i, of m. S sources, in the order of Source.

    rows: [m] int64; scores: [m] float32, probabilities, weighed by novelty under SOFT; sources: [m] int8, the source
    of the best score; raw: [m] float32 and interests: [m] int16, that source's best find; categories: [m] int32
    numbers; novel: [m] bool; source_scores: [m, S] float32; source_ranks: [m, S] int32, 0-based, NOT_FOUND;
    finds: every find of every item, for the reasons.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    sources: NDArray[np.int8]
    raw: NDArray[np.float32]
    interests: NDArray[np.int16]
    categories: NDArray[np.int32]
    novel: NDArray[np.bool_]
    source_scores: NDArray[np.float32]
    source_ranks: NDArray[np.int32]
    finds: Candidates

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: NDArray[np.int64]) -> Scored:
        """Keep the items at the given positions, in their order."""
        return Scored(
            self.rows[at],
            self.scores[at],
            self.sources[at],
            self.raw[at],
            self.interests[at],
            self.categories[at],
            self.novel[at],
            self.source_scores[at],
            self.source_ranks[at],
            self.finds,
        )


def score(
    candidates: Candidates,
    categories: NDArray[np.int32],
    novel: NDArray[np.bool_],
    id_order: NDArray[np.int32],
    calibration: Calibration,
    *,
    interest_factors: NDArray[np.float32],
    fallback: bool,
    known_weight: float = 1.0,
) -> Scored:
    """Score each item by its best source.

    categories: [n] numbers and novel: [n] bool, by candidate; id_order: [num_items] rank of each item's id;
    interest_factors: [k], by what feedback moved the weight of each of the user's interests: the calibrated
    probability was measured without that knowledge, and moves as the interest's rate did, up to 1;
    fallback: stored vectors stood in for the tower; known_weight: factor on items that are not novel.
    Ties, which isotonic curves make many of, go to the better rank within the source, then to the smaller id.
    """
    rows, first, inverse = np.unique(candidates.rows, return_index=True, return_inverse=True)
    m, num_sources = len(rows), len(Source)
    best_find = np.full((m, num_sources), -1, np.int64)
    source_scores = np.zeros((m, num_sources), np.float32)
    source_ranks = np.full((m, num_sources), NOT_FOUND, np.int32)
    for j, source in enumerate(Source):
        finds = np.flatnonzero(candidates.sources == source)
        probabilities = calibration.probabilities(source, fallback, candidates.raw[finds])
        if source is Source.INTEREST:
            probabilities = np.minimum(probabilities * interest_factors[candidates.interests[finds]], np.float32(1))
        ties = (candidates.interests[finds], id_order[candidates.rows[finds]])
        order = np.lexsort((*ties, -candidates.raw[finds], -probabilities))
        finds, probabilities = finds[order], probabilities[order]
        _, at = np.unique(inverse[finds], return_index=True)
        # Of an item's finds the best one counts, and items are ranked by it.
        at = np.sort(at)
        finds = finds[at]
        items = inverse[finds]
        best_find[items, j] = finds
        source_ranks[items, j] = np.arange(len(items), dtype=np.int32)
        source_scores[items, j] = probabilities[at]
    # A source that gives probability 0 still found the item.
    ordering = np.where(source_ranks == NOT_FOUND, np.float32(-1), source_scores)
    column = _best_column(ordering, source_ranks)
    item = np.arange(m)
    scores = source_scores[item, column] * np.where(novel[first], np.float32(1), np.float32(known_weight))
    scored = Scored(
        rows=rows,
        scores=scores.astype(np.float32),
        sources=np.array(list(Source), np.int8)[column],
        raw=candidates.raw[best_find[item, column]],
        interests=candidates.interests[best_find[item, column]],
        categories=categories[first],
        novel=novel[first],
        source_scores=source_scores,
        source_ranks=source_ranks,
        finds=candidates,
    )
    return scored.take(np.lexsort((id_order[rows], source_ranks[item, column], -scored.scores)))


def rank_features(
    scored: Scored,
    unexpectedness: NDArray[np.float32],
    interest_weights: NDArray[np.float32],
    novel_categories: NovelCategories,
) -> NDArray[np.float32]:
    """Lay out the features of m items, [m, len(FEATURE_NAMES)] float32, a row per item."""
    features = np.zeros((len(scored), len(FEATURE_NAMES)), np.float32)
    features[:, 0] = scored.raw
    features[:, 1] = unexpectedness
    features[:, 2] = scored.novel
    led = scored.interests >= 0
    features[led, 3] = interest_weights[scored.interests[led]]
    features[:, 4] = novel_categories.alignments_of(scored.categories)
    features[features[:, 4] > 0, 5] = novel_categories.num_recent
    features[:, _OF_SOURCES::2] = scored.source_scores
    found = scored.source_ranks != NOT_FOUND
    features[:, _OF_SOURCES + 1 :: 2][found] = 1.0 / (1.0 + scored.source_ranks[found])
    return features


def _best_column(scores: NDArray[np.float32], ranks: NDArray[np.int32]) -> NDArray[np.int64]:
    """Column of the highest score per row; ties to the better rank, then to the first source."""
    best = scores == scores.max(axis=1, keepdims=True, initial=-1)
    columns: NDArray[np.int64] = np.where(best & (ranks >= 0), ranks, np.iinfo(np.int32).max).argmin(axis=1)
    return columns
