"""Which of the scored items are returned: diversity, places of sources, a cap per category, a count."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.query import SourceBounds
from serendipity.channel.recall.scorer import Scored


def category_cap(count: int, share: float) -> int:
    """Items of one category that an answer of `count` may hold before others are preferred, at least 1."""
    return max(1, math.ceil(count * share))


def select(scored: Scored, count: int, bounds: Mapping[int, SourceBounds], cap: int) -> NDArray[np.int64]:
    """Choose positions in `scored` (best first), at most `count`, ascending.

    First the minimum of every bounded source, best first; then in the order given; both within the category cap and the
    sources' maxima. The cap gives way to a minimum, and before the answer goes short; the maxima do not.
    """
    of_items, categories = scored.sources.tolist(), scored.categories.tolist()
    minima = dict.fromkeys(of_items, 0) | {source: bound.min_count for source, bound in bounds.items()}
    maxima = dict.fromkeys(of_items, count) | {source: bound.max_count for source, bound in bounds.items()}
    per_source = dict.fromkeys(maxima, 0)
    per_category: dict[int, int] = {}
    chosen: set[int] = set()

    def take(limits: Mapping[int, int], most_per_category: int) -> None:
        wanted = sum(max(0, limit - per_source[source]) for source, limit in limits.items())
        missing = min(wanted, count - len(chosen))
        if missing <= 0:
            return
        for i, (source, category) in enumerate(zip(of_items, categories, strict=True)):
            held = per_category.get(category, 0)
            if held >= most_per_category or per_source[source] >= limits[source] or i in chosen:
                continue
            chosen.add(i)
            per_category[category] = held + 1
            per_source[source] += 1
            missing -= 1
            if not missing:
                return

    take(minima, cap)
    take(minima, count)
    take(maxima, cap)
    take(maxima, count)
    return np.array(sorted(chosen), np.int64)


def diversify(
    values: NDArray[np.float32], vectors: NDArray[np.float32], count: int, weight: float
) -> NDArray[np.int64]:
    """Order m items by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): positions, all of them.

    values: [m] what each is worth, best first; vectors: [m, d]. The first `count` are taken one after another, each the
    best by (1 − weight) · value / largest value − weight · cosine to the nearest one taken before; the others follow.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    worth = (1 - weight) * values / max(float(values.max(initial=0)), 1e-12)
    nearest, left, order = np.zeros(len(values), np.float32), np.ones(len(values), np.bool_), []
    for _ in range(min(count, len(values))):
        best = int(np.where(left, worth - weight * nearest, -np.inf).argmax())
        order.append(best)
        left[best] = False
        nearest = np.maximum(nearest, unit @ unit[best])
    return np.concatenate([np.array(order, np.int64), np.flatnonzero(left)])
