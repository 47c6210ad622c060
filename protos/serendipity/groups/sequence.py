"""The two sequences of CoEA's DSIE: the long one that makes a user's group, the short one that makes a list's key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY, Clicks

Counted = Literal["item", "category"]
"""What a user's clicks are counted on. Where no user clicks an item twice (MovieLens-1M), only categories tell
what is occasional."""

DEFAULT_GROUP = 0
"""Group of users with too little history; its profile is the whole population's."""

SHORT_CATEGORIES = 3
"""Latest distinct categories a list is for at most: |C_s|, and m of the most specific key."""


@dataclass(frozen=True)
class LongSequenceRule:
    """Which clicks the long-term interest is read from (arXiv 2508.00450, eq. 3).

    threshold: a click is kept when the user's clicks so far on the same item or category, itself included, reach it;
    counted: on which of the two; length: latest kept clicks at most; min_clicks: kept clicks below which the user
    belongs to the default group.

    "So far", where the paper counts over the whole sequence: what was kept never changes afterwards, so that a user's
    group as of any moment of the past is what would have been computed then.
    """

    threshold: int
    counted: Counted
    length: int
    min_clicks: int


def kept_clicks(items: NDArray[np.int64], categories: NDArray[np.int32], rule: LongSequenceRule) -> NDArray[np.bool_]:
    """Tell which clicks of one user pass the threshold. items, categories: [n], oldest first. Returns [n] bool."""
    counted = items if rule.counted == "item" else categories
    so_far = np.zeros(len(counted), np.int64)
    order = np.argsort(counted, kind="stable")
    if len(order):
        ordered = counted[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        places = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
        so_far[order] = places + 1
    kept: NDArray[np.bool_] = (so_far >= rule.threshold) & (items > 0)
    return kept


def long_sequence(clicks: Clicks, rule: LongSequenceRule) -> NDArray[np.int64]:
    """Lay out the items the group encoder is fed: [length] int64, row + 1, oldest first, zeros in front.

    clicks: newest first, as everywhere.
    """
    items, categories = clicks.items[::-1], clicks.categories[::-1]
    chosen = items[kept_clicks(items, categories, rule)][-rule.length :]
    return np.concatenate([np.zeros(rule.length - len(chosen), np.int64), chosen])


def latest_distinct(clicks: Clicks, most: int = SHORT_CATEGORIES) -> list[int]:
    """List the numbers of the latest distinct top-level categories, newest first: the short-term set C_s."""
    found: dict[int, None] = {}
    for category in clicks.categories.tolist():
        if category != NO_CATEGORY:
            found.setdefault(category)
            if len(found) == most:
                break
    return list(found)
