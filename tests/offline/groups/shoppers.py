"""A small shop whose users are of two kinds: each clicks two of its four categories, in turns."""

from __future__ import annotations

import numpy as np

from serendipity.offline.groups.config import GroupsConfig, InterestConfig, QuantizerConfig, SequenceConfig
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

CATEGORIES = ["Bread", "Fish", "Milk", "Tea"]
ITEMS_PER_CATEGORY = 5

CONFIG = GroupsConfig(
    sequence=SequenceConfig(threshold=2, counted="category", min_clicks=3),
    interest=InterestConfig(
        dim=16,
        window=4,
        epochs=12,
        min_steps=0,
        batch_clicks=256,
        min_item_clicks=2,
        learning_rate=1e-2,
        validation_users=8,
    ),
    quantizer=QuantizerConfig(codebook_size=4, num_quantizers=2, latent_dim=4, hidden_dim=16, epochs=10, prefixes=2),
    num_groups=3,
)


def make_catalogue() -> Catalogue:
    """Four categories of five items each."""
    size = len(CATEGORIES) * ITEMS_PER_CATEGORY
    numbers = np.repeat(np.arange(1, len(CATEGORIES) + 1), ITEMS_PER_CATEGORY).astype(np.int32)
    return Catalogue(
        item_ids=[f"item-{row:02}" for row in range(size)],
        titles=[f"{CATEGORIES[number - 1]} {row}" for row, number in enumerate(numbers)],
        paths=[(CATEGORIES[number - 1],) for number in numbers],
        brands=[""] * size,
        tags=[()] * size,
        available=np.ones(size, np.bool_),
        prices=np.full(size, np.nan, np.float32),
        categories=CATEGORIES,
        item_categories=numbers,
        category_offsets=np.arange(0, size + 1, ITEMS_PER_CATEGORY, dtype=np.int64),
        novelty_level=0,
    )


def make_histories(users: list[list[int]], times: list[list[int]] | None = None) -> Histories:
    """Lay out histories. users: rows + 1 clicked, oldest first; times: of each, by default one a second."""
    numbers = np.concatenate([np.zeros(1, np.int32), make_catalogue().item_categories])
    items = np.array([item for clicks in users for item in clicks], np.int64)
    when = [list(range(len(clicks))) for clicks in users] if times is None else times
    return Histories(
        user_ids=[f"user-{user:03}" for user in range(len(users))],
        profiles=[{"home": "town" if user % 2 else "farm"} for user in range(len(users))],
        offsets=np.cumsum([0, *map(len, users)]).astype(np.int64),
        items=items,
        categories=numbers[items],
        times=np.array([time for clicks in when for time in clicks], np.int64),
        search_offsets=np.zeros(len(users) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def draw_histories(users: int = 60, seed: int = 0) -> Histories:
    """Even users click bread and fish, odd ones milk and tea; 0 to 24 clicks each, the first two none and one."""
    random = np.random.default_rng(seed)
    clicks = []
    for user in range(users):
        length = user if user < 2 else int(random.integers(6, 25))
        first = 2 * (user % 2)
        categories = first + random.integers(0, 2, length)
        clicks.append((categories * ITEMS_PER_CATEGORY + random.integers(0, ITEMS_PER_CATEGORY, length) + 1).tolist())
    return make_histories(clicks)
