"""Which of the scored items are returned: quotas between sources, a cap per category, a count."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.query import RecallQuery, Source, SourceBounds
from serendipity.channel.scorer import Scored
from serendipity.channel.settings import ChannelSettings


def source_bounds(query: RecallQuery, settings: ChannelSettings) -> Mapping[Source, SourceBounds]:
    """Bounds per source: the request's, or where it has none the default balance of conversion and serendipity."""
    if query.source_bounds:
        return query.source_bounds
    return {
        Source.COLLABORATIVE: SourceBounds(int(query.count * settings.conversion_share), query.count),
        Source.INTEREST: SourceBounds(int(query.count * settings.serendipity_share), query.count),
    }


def category_cap(count: int, share: float) -> int:
    """Items of one category that an answer of `count` may hold before others are preferred, at least 1."""
    return max(1, math.ceil(count * share))


def select(scored: Scored, count: int, bounds: Mapping[Source, SourceBounds], cap: int) -> NDArray[np.int64]:
    """Choose positions in `scored` (best first), at most `count`, ascending.

    First every source's minimum, best first; then by score; both within the category cap and the sources' maxima.
    The cap gives way to a minimum, and before the answer goes short; the maxima do not.
    """
    sources, categories = scored.sources.tolist(), scored.categories.tolist()
    per_source = dict.fromkeys((int(source) for source in Source), 0)
    per_category: dict[int, int] = {}
    chosen: set[int] = set()

    def take(limits: Mapping[int, int], most_per_category: int) -> None:
        if len(chosen) >= count or not any(per_source[source] < limit for source, limit in limits.items()):
            return
        for i, (source, category) in enumerate(zip(sources, categories, strict=True)):
            held = per_category.get(category, 0)
            if i in chosen or held >= most_per_category or per_source[source] >= limits[source]:
                continue
            chosen.add(i)
            per_category[category] = held + 1
            per_source[source] += 1
            if len(chosen) == count:
                return

    unbounded = SourceBounds(0, count)
    minima = {int(source): bounds.get(source, unbounded).min_count for source in Source}
    maxima = {int(source): bounds.get(source, unbounded).max_count for source in Source}
    take(minima, cap)
    take(minima, count)
    take(maxima, cap)
    take(maxima, count)
    return np.array(sorted(chosen), np.int64)
