"""One list of the candidates of all sources: features, probabilities, and the source that each is counted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.interests import Interests
from serendipity.channel.recall.pool import Pool
from serendipity.channel.recall.query import SOURCES, SourceBounds
from serendipity.channel.recall.sources import NO_INTEREST, Finds
from serendipity.channel.snapshot.merge import Merge
from serendipity.novelty import unexpectedness
from serendipity.rank_features import FEATURE_NAMES, popularity, worth
from serendipity.v1 import channel_pb2

NOT_FOUND = -1
"""Rank of an item in a source that did not find it."""

_U2I = channel_pb2.SOURCE_COLLABORATIVE

_OF_SOURCES = FEATURE_NAMES.index("category_share") + 1
_NEVER_DAYS = 3_650.0
_DAY = 86_400.0

_FUSION_RANK = 60.0
"""Ranks are fused as Σ 1 / (60 + rank) (Cormack et al., SIGIR 2009)."""

_LAST = 1_000_000_000
"""Added to a rank, puts it behind all others."""

SEARCH_ODDS = 8.0
"""By what a search that names an interest in full multiplies the odds of the items in it."""

_RANKED_PER_WANTED, _LEAST_RANKED = 1.5, 200
"""Items the merge model is asked of, per candidate asked of each source and at least; the best by fused ranks."""


@dataclass(frozen=True)
class Scored:
    """Distinct items, best first; element i of every column is item i, of m. S sources, in the order of SOURCES.

    rows: [m] int64; values: [m] float32, what they are ordered by; scores: [m] float32, probabilities, weighed by
    novelty under SOFT; sources: [m] int8, number of the source that the item is counted to; raw: [m] float32, that
    source's score; interests: [m] int16, what leads the interest source to the item, NO_INTEREST where it did not find
    it; categories: [m] int32 numbers; grounded: [m, k] bool, interests the item is grounded in; source_ranks: [m, S]
    int32, 0-based, NOT_FOUND; features: [m, F] float32, columns FEATURE_NAMES.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    scores: NDArray[np.float32]
    sources: NDArray[np.int8]
    raw: NDArray[np.float32]
    interests: NDArray[np.int16]
    categories: NDArray[np.int32]
    grounded: NDArray[np.bool_]
    source_ranks: NDArray[np.int32]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: NDArray[np.int64]) -> Scored:
        """Keep the items at the given positions, in their order."""
        return Scored(*(getattr(self, name)[at] for name in self.__dataclass_fields__))


def score(
    pool: Pool,
    finds: Mapping[int, Finds],
    user: Hydrated,
    merge: Merge,
    wanted: int,
    known_weight: float = 1.0,
    surprise: float = 0.0,
    bounds: Mapping[int, SourceBounds] | None = None,
) -> Scored:
    """Score each item, and count it to the source that ranks it highest, or to another where the bounds want it so.

    The interest source comes last for what no interest is grounded in: that lies near the user, and others say why.

    finds: by source, of those that have any; wanted: best of each source that count; known_weight: factor on items that
    are not novel; surprise: 0 to 1, what unexpectedness counts in the order; bounds: places of sources. Without a merge
    model a score is the mean of 60 / (60 + rank) over the sources, and of the rank by popularity as far as that counts.
    Ties go to the better fused ranks, then to the earlier row.
    """
    bounds = bounds or {}
    columns = {SOURCES.index(source): bound for source, bound in bounds.items()}
    best = {source: _best(of_source.found, of_source.raw, wanted) for source, of_source in finds.items()}
    popular = _most_popular(pool, finds, merge, wanted)
    if len(popular):
        # They are among what the collaborative source proposes, and it scores them.
        near, more = best[_U2I], np.setdiff1d(popular, best[_U2I])
        best[_U2I] = np.concatenate([near, more[np.argsort(-finds[_U2I].raw[more], kind="stable")]])
    at = np.unique(np.concatenate([np.empty(0, np.int64), *best.values()]))
    ranks = np.full((len(at), len(SOURCES)), NOT_FOUND, np.int32)
    for source, found in best.items():
        ranks[np.searchsorted(at, found), SOURCES.index(source)] = np.arange(len(found))
    fused = np.where(ranks == NOT_FOUND, 0, _vote(ranks)).mean(axis=1)
    if len(popular):
        fused *= 1 - merge.popularity
        fused[np.searchsorted(at, popular)] += merge.popularity * _vote(np.arange(len(popular)))
    counted = _counted_ranks(ranks, pool.grounded[at])
    kept = _kept(fused, counted, max(int(wanted * _RANKED_PER_WANTED), _LEAST_RANKED), columns)
    at, ranks, counted, fused = at[kept], ranks[kept], counted[kept], fused[kept]
    raw, interests = np.zeros(ranks.shape, np.float32), np.full(len(at), NO_INTEREST, np.int16)
    # The user tower's own score is known whether or not the request wants anything of that source.
    raw[:, SOURCES.index(_U2I)] = pool.scores[at, 0]
    for source, of_source in finds.items():
        scorable = np.isfinite(of_source.raw[at])
        raw[scorable, SOURCES.index(source)] = of_source.raw[at[scorable]]
        if source == channel_pb2.SOURCE_INTEREST:
            interests = np.where(of_source.found[at], of_source.interests[at], NO_INTEREST).astype(np.int16)
    features = _features(pool, at, raw, ranks, interests, user, merge)
    scores = fused.astype(np.float32)
    if merge.id and len(at):
        scores = merge.probabilities(features[:, merge.positions])
    scores = _raised(scores, pool.grounded[at], user.interests)
    column = _best_column(counted)
    _share_out(column, counted, columns)
    novel, item = pool.novel[at], np.arange(len(at))
    scores = (scores * np.where(novel, 1, known_weight)).astype(np.float32)
    values = worth(scores, features[:, 0], surprise)
    return Scored(
        rows=pool.rows[at],
        values=values,
        scores=scores,
        sources=np.array(SOURCES, np.int8)[column],
        raw=raw[item, column],
        interests=interests,
        categories=pool.categories[at],
        grounded=pool.grounded[at],
        source_ranks=ranks,
        features=features,
    ).take(np.lexsort((at, -fused, -values)))


def _raised(scores: NDArray[np.float32], grounded: NDArray[np.bool_], interests: Interests) -> NDArray[np.float32]:
    """Raise the odds of what lies in an interest that the user searched for, by the interest's weight.

    grounded: [m, k]. No model has learned what a search says: the sessions that it learns from have none.
    """
    raised = np.array([weight if by else 0 for weight, by in zip(interests.weights, interests.searches, strict=True)])
    if not raised.any():
        return scores
    odds = 1 + (SEARCH_ODDS - 1) * (grounded * raised).max(axis=1)
    lifted: NDArray[np.float32] = (scores * odds / (1 + scores * (odds - 1))).astype(np.float32)
    return lifted


def _features(
    pool: Pool,
    at: NDArray[np.int64],
    raw: NDArray[np.float32],
    ranks: NDArray[np.int32],
    interests: NDArray[np.int16],
    user: Hydrated,
    merge: Merge,
) -> NDArray[np.float32]:
    """Lay out the features of the items at positions of the pool, [m, len(FEATURE_NAMES)] float32."""
    inputs, categories = user.inputs, pool.categories[at]
    known = inputs.long_categories[0] > 0
    numbers, counts = inputs.long_categories[0][known], inputs.long_counts[0][known].astype(np.float32)
    clicks = np.zeros(len(merge.category_vectors), np.float32)
    days = np.full(len(clicks), _NEVER_DAYS, np.float32)
    clicks[numbers] = counts
    days[numbers] = np.minimum(inputs.long_ages[0][known] / _DAY, _NEVER_DAYS)
    features = np.zeros((len(at), len(FEATURE_NAMES)), np.float32)
    features[:, 0] = unexpectedness(merge.category_vectors, clicks)[categories]
    features[:, 1] = pool.novel[at]
    led = interests != NO_INTEREST
    features[led, 2] = user.interests.weights[interests[led]]
    features[:, 3] = user.novel_categories.alignments_of(categories)
    features[features[:, 3] > 0, 4] = user.novel_categories.num_recent
    features[:, 5] = np.log1p(clicks[categories])
    features[:, 6] = np.log1p(days[categories])
    features[:, 7:_OF_SOURCES] = merge.item_statistics[pool.rows[at]]
    features[:, _OF_SOURCES::2] = raw
    found = ranks != NOT_FOUND
    features[:, _OF_SOURCES + 1 :: 2][found] = 1.0 / (1.0 + ranks[found])
    return features


def _best(found: NDArray[np.bool_], raw: NDArray[np.float32], wanted: int) -> NDArray[np.int64]:
    """Positions of the best of what is found, best first: by raw score, then by row."""
    at = np.flatnonzero(found)
    if len(at) > wanted:
        # What ties with the last of them stays in until it is sorted.
        at = at[raw[at] >= np.partition(raw[at], len(at) - wanted)[len(at) - wanted]]
    best: NDArray[np.int64] = at[np.argsort(-raw[at], kind="stable")][:wanted]
    return best


def _most_popular(pool: Pool, finds: Mapping[int, Finds], merge: Merge, wanted: int) -> NDArray[np.int64]:
    """Positions of the most popular of what the collaborative source found, where that counts."""
    if merge.id or not merge.popularity or _U2I not in finds:
        return np.empty(0, np.int64)
    clicks = popularity(merge.item_statistics[pool.rows])
    return _best(finds[_U2I].found & (clicks > 0), clicks, wanted)


def _vote(ranks: NDArray[np.int32] | NDArray[np.int64]) -> NDArray[np.float64]:
    """What a place among the ranked counts, 0-based."""
    votes: NDArray[np.float64] = _FUSION_RANK / (_FUSION_RANK + 1 + ranks)
    return votes


def _kept(
    fused: NDArray[np.float64], ranks: NDArray[np.int32], most: int, bounds: Mapping[int, SourceBounds]
) -> NDArray[np.int64]:
    """Positions of the `most` best by fused ranks, and of what the minima of sources need; ascending."""
    if len(fused) <= most:
        return np.arange(len(fused))
    kept = np.zeros(len(fused), np.bool_)
    kept[np.argsort(-fused, kind="stable")[:most]] = True
    for j, bound in bounds.items():
        found_by = np.flatnonzero(ranks[:, j] != NOT_FOUND)
        kept[found_by[np.argsort(ranks[found_by, j])[: bound.min_count]]] = True
    found: NDArray[np.int64] = np.flatnonzero(kept)
    return found


def _counted_ranks(ranks: NDArray[np.int32], grounded: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Ranks by which items are counted to sources, [m, S]. grounded: [m, k]."""
    counted, interest = ranks.copy(), SOURCES.index(channel_pb2.SOURCE_INTEREST)
    counted[(ranks[:, interest] != NOT_FOUND) & ~grounded.any(axis=1), interest] += _LAST
    return counted


def _best_column(ranks: NDArray[np.int32]) -> NDArray[np.int64]:
    """Column of the source that ranks each item highest; ties to the first."""
    columns: NDArray[np.int64] = np.where(ranks == NOT_FOUND, np.iinfo(np.int32).max, ranks).argmin(axis=1)
    return columns


def _share_out(column: NDArray[np.int64], ranks: NDArray[np.int32], bounds: Mapping[int, SourceBounds]) -> None:
    """Move items between the sources that found them, so that minima are met and maxima leave no place empty.

    column: [m], of each item's best source, changed in place, as is `ranks`: [m, S]; bounds: by column. A minimum takes
    the source's best items; sources with few finds take theirs before others. What a source has beyond its maximum
    goes to the next best that found it.
    """
    found = ranks != NOT_FOUND
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
            free = np.flatnonzero((ranks[:, j] != NOT_FOUND) & (column == j) & ~held)
            if len(free) > room:
                over = free[np.argsort(ranks[free, j])][room:]
                ranks[over, j] = NOT_FOUND
                over = over[(ranks[over] != NOT_FOUND).any(axis=1)]
                column[over] = _best_column(ranks[over])
                moved = True
