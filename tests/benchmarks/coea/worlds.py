"""Small worlds whose answers are known by construction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


def catalogue(num_categories: int, items_each: int = 2) -> Catalogue:
    """Categories A, B, C …, each of the same number of items."""
    names = [chr(ord("A") + number) for number in range(num_categories)]
    count = num_categories * items_each
    return Catalogue(
        item_ids=[f"i{row}" for row in range(count)],
        titles=[f"item {row}" for row in range(count)],
        paths=[(names[row // items_each],) for row in range(count)],
        brands=[""] * count,
        tags=[()] * count,
        available=np.ones(count, np.bool_),
        prices=np.full(count, np.nan, np.float32),
        categories=names,
        item_categories=np.repeat(np.arange(1, num_categories + 1, dtype=np.int32), items_each),
        category_offsets=np.arange(0, count + 1, items_each, dtype=np.int64),
        novelty_level=0,
    )


def histories(clicks: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None) -> Histories:
    """Clicks of each user as category numbers, oldest first; each click is on the category's first of two items."""
    counts = [len(user) for user in clicks]
    categories = np.array([number for user in clicks for number in user], np.int32)
    seconds = times if times is not None else [list(range(len(user))) for user in clicks]
    return Histories(
        user_ids=[f"u{user:04d}" for user in range(len(clicks))],
        profiles=[{"age": "old" if user % 2 else "young"} for user in range(len(clicks))],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=np.where(categories > 0, 2 * (categories - 1) + 1, 0).astype(np.int64),
        categories=categories,
        times=np.array([time for user in seconds for time in user], np.int64),
        search_offsets=np.zeros(len(clicks) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def cyclists(num_users: int = 60, num_categories: int = 8, length: int = 40) -> Histories:
    """Users who go round the categories one after the other: the next is the one after the latest."""
    return histories([[(start + step) % num_categories + 1 for step in range(length)] for start in range(num_users)])
