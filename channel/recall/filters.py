"""What may not be returned, each rule on its own, with what it kept and what it removed.

Categories and availability restrict the search already; here they are proved, so that no way of finding
candidates, present or future, can get round them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import Pool
from serendipity.v1 import channel_pb2

Filter = Callable[[Pool, Hydrated], NDArray[np.bool_]]
"""One rule: marks the rows of the pool that pass, [m] bool."""


def is_allowed_novelty(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """Under STRICT: the item's top-level category is not among the user's latest 200 clicks."""
    if user.query.novelty_policy != channel_pb2.NOVELTY_POLICY_STRICT:
        return np.ones(len(pool), np.bool_)
    return pool.novel


def is_of_listed_category(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """Allow and deny lists of the request; items without a top-level category never pass."""
    listed: NDArray[np.bool_] = user.listed[pool.categories]
    return listed


def is_available(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """In stock, as of the snapshot and of later changes."""
    available: NDArray[np.bool_] = ~user.unavailable[pool.rows]
    return available


def is_not_excluded(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """Not among the items the request excludes."""
    return ~np.isin(pool.rows, user.excluded)


def is_not_served(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """Not shown to the user within the horizon."""
    return ~np.isin(pool.rows, user.served)


def is_not_repeated(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """Not what the user clicked or ordered lately, under SOFT and OFF, unless the request allows that."""
    return ~np.isin(pool.rows, user.repeated)


def is_not_dismissed(pool: Pool, user: Hydrated) -> NDArray[np.bool_]:
    """Neither an item the user does not want nor of a category of several such items."""
    wanted: NDArray[np.bool_] = ~np.isin(pool.rows, user.dismissed) & ~user.dismissed_categories[pool.categories]
    return wanted


FILTERS: Mapping[str, Filter] = {
    "novelty": is_allowed_novelty,
    "category": is_of_listed_category,
    "availability": is_available,
    "excluded": is_not_excluded,
    "served": is_not_served,
    "dismissed": is_not_dismissed,
    "repeated": is_not_repeated,
}
"""All filters by name, in the order they are applied and counted."""


def apply_filters(pool: Pool, user: Hydrated) -> tuple[Pool, list[channel_pb2.FilterCount]]:
    """Apply every filter in turn; counts are of items."""
    counts = []
    kept = np.ones(len(pool), np.bool_)
    left = len(pool)
    for name, passes in FILTERS.items():
        kept &= passes(pool, user)
        before, left = left, int(kept.sum())
        counts.append(channel_pb2.FilterCount(filter=name, kept=left, removed=before - left))
    return pool.take(kept), counts
