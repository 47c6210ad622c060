"""A small shop of eight themes, each spread over two shelves, and users who mostly click one theme."""

from __future__ import annotations

import numpy as np

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

THEMES = (
    "bread flour yeast", "guitar strings pick", "tent sleeping stove", "puzzle dice board",
    "garden spade seeds", "camera lens tripod", "pencil paper ink", "bicycle helmet saddle",
)  # fmt: skip
NUM_ITEMS, NUM_USERS = 80, 40


def catalogue(titles: list[str] | None = None) -> Catalogue:
    """Items of eight themes, each spread over two categories: an interest crosses categories."""
    words = [THEMES[row % 8].split() for row in range(NUM_ITEMS)]
    numbers = np.repeat([1, 2], NUM_ITEMS // 2).astype(np.int32)
    return Catalogue(
        item_ids=[f"i{row:02d}" for row in range(NUM_ITEMS)],
        titles=titles or [f"{a} {b} {row} {c}" for row, (a, b, c) in enumerate(words)],
        paths=[(f"shelf {number}",) for number in numbers],
        brands=[""] * NUM_ITEMS,
        tags=[("new",) if row % 3 else () for row in range(NUM_ITEMS)],
        available=np.ones(NUM_ITEMS, np.bool_),
        prices=np.full(NUM_ITEMS, np.nan, np.float32),
        categories=["shelf 1", "shelf 2"],
        item_categories=numbers,
        category_offsets=np.array([0, NUM_ITEMS // 2, NUM_ITEMS]),
        novelty_level=0,
    )


def histories(clicks: int = 12, seed: int = 0) -> Histories:
    """User u clicks items of theme u mod 8, and one in four of anything."""
    rng = np.random.default_rng(seed)
    rows = [
        [
            int(rng.integers(NUM_ITEMS // 8)) * 8 + user % 8 if i % 4 else int(rng.integers(NUM_ITEMS))
            for i in range(clicks)
        ]
        for user in range(NUM_USERS)
    ]
    items = np.array(rows, np.int64).ravel() + 1
    return Histories(
        user_ids=[f"u{user:02d}" for user in range(NUM_USERS)],
        profiles=[{}] * NUM_USERS,
        offsets=np.arange(NUM_USERS + 1) * clicks,
        items=items,
        categories=catalogue().item_categories[items - 1],
        times=np.tile(np.arange(clicks), NUM_USERS) * 100,
        search_offsets=np.zeros(NUM_USERS + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )
