"""Scores that compare across sources, and the features the host's own ranker gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.pool import Pool
from serendipity.channel.recall.query import SOURCES, SourceBounds, source_name
from serendipity.channel.recall.sources import NO_INTEREST, Finds
from serendipity.v1 import channel_pb2

NOT_FOUND = -1
"""Rank of an item in a source that did not find it."""

FEATURE_NAMES = (
    "relevance",
    "unexpectedness",
    "novel",
    "interest_weight",
    "alignment",
    "alignment_recent",
    *(f"{source_name(source)}_{part}" for source in SOURCES for part in ("score", "reciprocal_rank")),
)
"""Columns of the rank features. A source's score and reciprocal rank (1 for its best item) are 0 where it did not
find the item. alignment: of the item's category on the group's list, 0 where it is not on it; alignment_recent: how
many of the user's latest categories that list is for (m), −1 for the list of the default group, 0 again where the
category is not on it. Both are 0 where the request wants nothing of the group source: no list is read then."""

_OF_SOURCES = FEATURE_NAMES.index("alignment_recent") + 1


@dataclass(frozen=True)
class Scored:
    """Distinct items, best first; element i of every column is item i, of m. S sources, in the order of SOURCES.

    rows: [m] int64; scores: [m] float32, probabilities, weighed by novelty under SOFT; sources: [m] int8, number of
    the source of that score; raw: [m] float32, that source's; interests: [m] int16, what leads the interest source
    to the item, NO_INTEREST where it did not find it; categories: [m] int32 numbers; novel: [m] bool; grounded: [m, k]
    bool, interests the item is grounded in; source_scores: [m, S] float32; source_ranks: [m, S] int32, 0-based,
    NOT_FOUND.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    sources: NDArray[np.int8]
    raw: NDArray[np.float32]
    interests: NDArray[np.int16]
    categories: NDArray[np.int32]
    novel: NDArray[np.bool_]
    grounded: NDArray[np.bool_]
    source_scores: NDArray[np.float32]
    source_ranks: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: NDArray[np.int64]) -> Scored:
        """Keep the items at the given positions, in their order."""
        return Scored(*(getattr(self, name)[at] for name in self.__dataclass_fields__))


def score(
    pool: Pool,
    finds: Mapping[int, Finds],
    wanted: int,
    known_weight: float = 1.0,
    bounds: Mapping[int, SourceBounds] | None = None,
) -> Scored:
    """Score each item by its best source, or by another that found it where the bounds of the best want it so.

    finds: by source, of those that have any; wanted: best of each source that count; known_weight: factor on items that
    are not novel; bounds: of the request, by source. Ties, which isotonic curves make many of, go to the better rank
    within the source, then to the earlier row.
    """
    best = {source: _best(of_source, wanted) for source, of_source in finds.items()}
    at = np.unique(np.concatenate([np.empty(0, np.int64), *best.values()]))
    m, num_sources = len(at), len(SOURCES)
    source_scores = np.zeros((m, num_sources), np.float32)
    source_ranks = np.full((m, num_sources), NOT_FOUND, np.int32)
    raw = np.zeros((m, num_sources), np.float32)
    interests = np.full(m, NO_INTEREST, np.int16)
    for j, source in enumerate(SOURCES):
        if source in finds:
            found, of_source = best[source], finds[source]
            items = np.searchsorted(at, found)
            source_scores[items, j] = of_source.probabilities[found]
            source_ranks[items, j] = np.arange(len(found))
            raw[items, j] = of_source.raw[found]
            if source == channel_pb2.SOURCE_INTEREST:
                interests[items] = of_source.interests[found]
    # A source that gives probability 0 still found the item.
    ordering = np.where(source_ranks == NOT_FOUND, np.float32(-1), source_scores)
    column = _best_column(ordering, source_ranks)
    if bounds:
        _share_out(column, ordering, source_ranks, {SOURCES.index(source): bound for source, bound in bounds.items()})
    item = np.arange(m)
    novel = pool.novel[at]
    scores = source_scores[item, column] * np.where(novel, np.float32(1), np.float32(known_weight))
    return Scored(
        rows=pool.rows[at],
        scores=scores.astype(np.float32),
        sources=np.array(SOURCES, np.int8)[column],
        raw=raw[item, column],
        interests=interests,
        categories=pool.categories[at],
        novel=novel,
        grounded=pool.grounded[at],
        source_scores=source_scores,
        source_ranks=source_ranks,
    ).take(np.lexsort((at, source_ranks[item, column], -scores)))


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
    led = scored.sources == channel_pb2.SOURCE_INTEREST
    features[led, 3] = interest_weights[scored.interests[led]]
    features[:, 4] = novel_categories.alignments_of(scored.categories)
    features[features[:, 4] > 0, 5] = novel_categories.num_recent
    features[:, _OF_SOURCES::2] = scored.source_scores
    found = scored.source_ranks != NOT_FOUND
    features[:, _OF_SOURCES + 1 :: 2][found] = 1.0 / (1.0 + scored.source_ranks[found])
    return features


def _best(finds: Finds, wanted: int) -> NDArray[np.int64]:
    """Positions of a source's best finds, best first: by probability, then raw score, then row."""
    at = np.flatnonzero(finds.found)
    if len(at) > wanted:
        # What ties with the last of them stays in until it is sorted.
        probabilities = finds.probabilities[at]
        at = at[probabilities >= np.partition(probabilities, len(at) - wanted)[len(at) - wanted]]
    best: NDArray[np.int64] = at[np.lexsort((-finds.raw[at], -finds.probabilities[at]))][:wanted]
    return best


def _best_column(scores: NDArray[np.float32], ranks: NDArray[np.int32]) -> NDArray[np.int64]:
    """Column of the highest score per row; ties to the better rank, then to the first source."""
    best = scores == scores.max(axis=1, keepdims=True, initial=-1)
    columns: NDArray[np.int64] = np.where(best & (ranks >= 0), ranks, np.iinfo(np.int32).max).argmin(axis=1)
    return columns


def _share_out(
    column: NDArray[np.int64],
    ordering: NDArray[np.float32],
    ranks: NDArray[np.int32],
    bounds: Mapping[int, SourceBounds],
) -> None:
    """Move items between the sources that found them, so that minima are met and maxima leave no place empty.

    column: [m], of each item's best source, changed in place, as is `ordering`: [m, S] scores, −1 where not found;
    bounds: by column. A minimum takes the source's own items first; sources with few finds take theirs before others.
    What a source has beyond its maximum goes to the next best that found it.
    """
    found = ordering >= 0
    held = np.zeros(len(column), np.bool_)
    for j in sorted(bounds, key=lambda j: int(found[:, j].sum())):
        free = np.flatnonzero(found[:, j] & ~held)
        taken = free[np.lexsort((ranks[free, j], column[free] != j))][: bounds[j].min_count]
        column[taken] = j
        held[taken] = True
    moved = True
    while moved:
        moved = False
        for j, bound in bounds.items():
            room = bound.max_count - int((held & (column == j)).sum())
            free = np.flatnonzero((ordering[:, j] >= 0) & (column == j) & ~held)
            if len(free) > room:
                over = free[np.argsort(ranks[free, j])][room:]
                ordering[over, j] = -1
                column[over] = _best_column(ordering[over], ranks[over])
                moved = True
