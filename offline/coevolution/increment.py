"""Clicks that came in since the records were last learned from, as later logs hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


@dataclass(frozen=True)
class Increment:
    """Clicks by the numbers of a catalogue, in any order.

    user_ids: [n]. items: [n] int64, row + 1, 0 = not in the catalogue. categories: [n] int32. times: [n] int64.
    """

    user_ids: Sequence[str]
    items: NDArray[np.int64]
    categories: NDArray[np.int32]
    times: NDArray[np.int64]

    @classmethod
    def of_logs(cls, histories: Histories, theirs: Catalogue, ours: Catalogue) -> Increment:
        """Take all clicks of other logs, by our catalogue's numbers: items by id, categories by name.

        Clicks of which neither is in our catalogue are left out.
        """
        rows = {item_id: row for row, item_id in enumerate(ours.item_ids)}
        items = np.array([0, *(rows.get(item_id, -1) + 1 for item_id in theirs.item_ids)], np.int64)
        found = items[histories.items]
        # Of a known item our catalogue's category counts: theirs may have moved it.
        known = np.r_[NO_CATEGORY, ours.item_categories][found].astype(np.int32)
        named = np.where(found > 0, known, numbers_by_name(theirs, ours)[histories.categories])
        kept = named != NO_CATEGORY
        users = histories.users[kept]
        return cls([histories.user_ids[user] for user in users], found[kept], named[kept], histories.times[kept])


def numbers_by_name(theirs: Catalogue, ours: Catalogue) -> NDArray[np.int32]:
    """Give our numbers of another catalogue's top-level categories, by theirs: [C + 1], NO_CATEGORY for strangers."""
    numbers = {name: number for number, name in enumerate(ours.categories, 1)}
    return np.array([NO_CATEGORY, *(numbers.get(name, NO_CATEGORY) for name in theirs.categories)], np.int32)


def join_increment(histories: Histories, new: Increment) -> Histories:
    """Merge an increment into histories.

    The same user, item and second is the same click, as everywhere (novelty.latest); items outside the catalogue are
    told apart by category. Users that were unknown have no profile. Clicks of the same second keep the order of the
    histories, then of the increment.
    """
    user_ids = sorted({*histories.user_ids, *new.user_ids})
    numbers = {user_id: number for number, user_id in enumerate(user_ids)}
    places = np.array([numbers[user_id] for user_id in histories.user_ids], np.int64)
    new_users = np.array([numbers[user_id] for user_id in new.user_ids], np.int64)
    users = np.r_[np.repeat(places, np.diff(histories.offsets)), new_users]
    items = np.concatenate([histories.items, new.items])
    categories = np.concatenate([histories.categories, new.categories])
    times = np.concatenate([histories.times, new.times])
    is_new = np.arange(len(users)) >= len(histories.items)

    order = np.lexsort((times, users))
    kept = order[_first_of_each(users[order], times[order], items[order], categories[order], is_new[order])]
    return replace(
        histories,
        user_ids=user_ids,
        profiles=_spread(places, histories.profiles, len(user_ids)),
        offsets=np.searchsorted(users[kept], np.arange(len(user_ids) + 1)).astype(np.int64),
        items=items[kept],
        categories=categories[kept].astype(np.int32),
        times=times[kept],
        search_offsets=_offsets(places, histories.search_offsets, len(user_ids)),
        signal_offsets=_offsets(places, histories.signal_offsets, len(user_ids)),
    )


def _first_of_each(
    users: NDArray[np.int64],
    times: NDArray[np.int64],
    items: NDArray[np.int64],
    categories: NDArray[np.int32],
    is_new: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Tell which rows stay: all that are not new, and the new ones that repeat none before them."""
    # Items that are not in the catalogue have row 0; a negative number stands for their category.
    things = np.where(items > 0, items, -categories.astype(np.int64))
    order = np.lexsort((np.arange(len(users)), things, times, users))
    keys = np.stack([users, times, things])[:, order]
    first = np.ones(len(users), np.bool_)
    first[order] = np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)][: len(users)]
    stays: NDArray[np.bool_] = first | ~is_new
    return stays


def _spread(places: NDArray[np.int64], profiles: Sequence[dict[str, str]], users: int) -> list[dict[str, str]]:
    spread: list[dict[str, str]] = [{} for _ in range(users)]
    for place, profile in zip(places.tolist(), profiles, strict=True):
        spread[place] = profile
    return spread


def _offsets(places: NDArray[np.int64], offsets: NDArray[np.int64], users: int) -> NDArray[np.int64]:
    """Lay offsets out for more users, in the same order: [users + 1]; nothing stays nothing."""
    if not len(offsets):
        return offsets
    counts = np.zeros(users, np.int64)
    counts[places] = np.diff(offsets)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
