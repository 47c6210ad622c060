"""Small catalogues and histories, made without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

Click = tuple[str, str, int]


def make_catalogue(paths: Mapping[str, tuple[str, ...]], novelty_level: int = 1) -> Catalogue:
    def category(path: tuple[str, ...]) -> str | None:
        return path[novelty_level] if len(path) > novelty_level else None

    ids = sorted(
        paths, key=lambda item: (category(paths[item]) is None, category(paths[item]) or "", paths[item], item)
    )
    categories = sorted({name for path in paths.values() if (name := category(path)) is not None})
    numbers = [categories.index(name) + 1 if (name := category(paths[item])) is not None else 0 for item in ids]
    order = np.array([number or len(categories) + 1 for number in numbers])
    return Catalogue(
        item_ids=ids,
        titles=ids,
        paths=[paths[item] for item in ids],
        brands=[""] * len(ids),
        tags=[()] * len(ids),
        available=np.ones(len(ids), np.bool_),
        prices=np.full(len(ids), np.nan, np.float32),
        categories=categories,
        item_categories=np.array(numbers, np.int32),
        category_offsets=np.searchsorted(order, np.arange(1, len(categories) + 2)).astype(np.int64),
        novelty_level=novelty_level,
    )


def make_histories(
    catalogue: Catalogue,
    clicks: Sequence[Click],
    profiles: Mapping[str, dict[str, str]] | None = None,
    searches: Sequence[Click] = (),
) -> Histories:
    """clicks: (user, item, time); searches: (user, query, time)."""
    profiles = profiles or {}
    user_ids = sorted({user for user, _, _ in (*clicks, *searches)} | profiles.keys())
    number = {user: index for index, user in enumerate(user_ids)}
    row = {item: index for index, item in enumerate(catalogue.item_ids)}
    ordered = sorted({(number[user], time, item) for user, item, time in clicks})
    asked = sorted((number[user], time, query) for user, query, time in searches)
    rows = np.array([row[item] for _, _, item in ordered], np.int64)
    bounds = np.arange(len(user_ids) + 1)
    return Histories(
        user_ids=user_ids,
        profiles=[profiles.get(user, {}) for user in user_ids],
        offsets=np.searchsorted([user for user, _, _ in ordered], bounds).astype(np.int64),
        items=rows + 1,
        categories=catalogue.item_categories[rows] if len(rows) else np.empty(0, np.int32),
        times=np.array([time for _, time, _ in ordered], np.int64),
        search_offsets=np.searchsorted([user for user, _, _ in asked], bounds).astype(np.int64),
        searches=[query for _, _, query in asked],
        search_times=np.array([time for _, time, _ in asked], np.int64),
    )


SHOP = {
    "espresso-1": ("food", "coffee", "espresso"),
    "espresso-2": ("food", "coffee", "espresso"),
    "filter-1": ("food", "coffee", "filter coffee"),
    "green-1": ("food", "tea", "green tea"),
    "rye-1": ("food", "bread", "rye"),
    "drill-1": ("tools", "drills", "cordless drills"),
    "saw-1": ("tools", "saws", "hand saws"),
    "saw-2": ("tools", "saws", "chain saws"),
    "garden-saw": ("garden", "saws", "pruning saws"),
    "hose-1": ("garden", "hoses"),
    "voucher": ("misc",),
}


@pytest.fixture
def shop() -> Catalogue:
    return make_catalogue(SHOP)


@pytest.fixture
def histories_of() -> Callable[..., Histories]:
    return make_histories


@pytest.fixture
def catalogue_of() -> Callable[..., Catalogue]:
    return make_catalogue
