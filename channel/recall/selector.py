"""Which of the scored items are returned: quotas between sources, a cap per category, a count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.query import SOURCES, RecallQuery, SourceBounds
from serendipity.channel.recall.scorer import Scored
from serendipity.channel.recall.sources import Finds
from serendipity.channel.settings import ChannelSettings
from serendipity.sharding import shard_of
from serendipity.v1 import channel_pb2

_DAY = 86_400
_PARTS = 1_000
_CONVERSION = frozenset([channel_pb2.SOURCE_COLLABORATIVE])
_SERENDIPITY = frozenset([channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_GROUP])


@dataclass(frozen=True)
class Quota:
    """Bounds on how many candidates of an answer may carry one of some sources, counted together."""

    sources: frozenset[int]
    min_count: int
    max_count: int


def source_bounds(
    query: RecallQuery, finds: Mapping[int, Finds], settings: ChannelSettings
) -> Mapping[int, SourceBounds]:
    """Bounds of the request or, where it has none, the share that is explored: what the graph found gets that and no
    more.

    What the other sources leave empty is the graph's as well: with neither tower nor stored vectors that is everything.
    """
    if query.source_bounds or channel_pb2.SOURCE_GRAPH not in finds:
        return query.source_bounds
    # Places are whole: of 3 candidates a share of 0.2 is one for three of five users, others another day. A
    # user's requests of a day are alike, so that one that is tried again has the same answer.
    part = shard_of(f"places {query.now // _DAY} {query.user_id}", _PARTS) / _PARTS
    share = math.floor(query.count * settings.graph_share + part)
    others = [of_source.found for source, of_source in finds.items() if source != channel_pb2.SOURCE_GRAPH]
    left = query.count - int(np.any(others, axis=0).sum()) if others else query.count
    return {channel_pb2.SOURCE_GRAPH: SourceBounds(share, max(share, left))}


def source_quotas(
    query: RecallQuery, bounds: Mapping[int, SourceBounds], settings: ChannelSettings
) -> tuple[Quota, ...]:
    """Quotas of bounded sources and, where the request has none, the default balance of conversion and serendipity."""
    bounded = tuple(Quota(frozenset([source]), bound.min_count, bound.max_count) for source, bound in bounds.items())
    if query.source_bounds:
        return bounded
    return (
        Quota(_CONVERSION, int(query.count * settings.conversion_share), query.count),
        Quota(_SERENDIPITY, int(query.count * settings.serendipity_share), query.count),
        *bounded,
    )


def category_cap(count: int, share: float) -> int:
    """Items of one category that an answer of `count` may hold before others are preferred, at least 1."""
    return max(1, math.ceil(count * share))


def select(scored: Scored, count: int, quotas: Sequence[Quota], cap: int) -> NDArray[np.int64]:
    """Choose positions in `scored` (best first), at most `count`, ascending.

    First the minimum of every quota, best first; then by score; both within the category cap and the quotas' maxima.
    The cap gives way to a minimum, and before the answer goes short; the maxima do not. A source is in at most one
    quota; sources in none are unbounded.
    """
    unbounded = Quota(frozenset(SOURCES).difference(*(quota.sources for quota in quotas)), 0, count)
    bounds = [*quotas, unbounded]
    quota_of = {source: number for number, quota in enumerate(bounds) for source in quota.sources}
    of_items, categories = [quota_of[source] for source in scored.sources.tolist()], scored.categories.tolist()
    per_quota = [0] * len(bounds)
    per_category: dict[int, int] = {}
    chosen: set[int] = set()

    def take(limits: Sequence[int], most_per_category: int) -> None:
        missing = min(
            sum(max(0, limit - held) for held, limit in zip(per_quota, limits, strict=True)), count - len(chosen)
        )
        if missing <= 0:
            return
        for i, (quota, category) in enumerate(zip(of_items, categories, strict=True)):
            held = per_category.get(category, 0)
            if held >= most_per_category or per_quota[quota] >= limits[quota] or i in chosen:
                continue
            chosen.add(i)
            per_category[category] = held + 1
            per_quota[quota] += 1
            missing -= 1
            if not missing:
                return

    minima = [quota.min_count for quota in bounds]
    maxima = [quota.max_count for quota in bounds]
    take(minima, cap)
    take(minima, count)
    take(maxima, cap)
    take(maxima, count)
    return np.array(sorted(chosen), np.int64)
