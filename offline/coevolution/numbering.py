"""Later logs by the numbers of a build: its item rows and categories, which group model and LLMs know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


def numbered_as(histories: Histories, theirs: Catalogue, ours: Catalogue, since: int) -> Histories:
    """Give histories by our catalogue's numbers: items by id, 0 for strangers; categories by name.

    Clicks from `since` (Unix seconds) on that have no category of ours are left out.
    """
    rows = {item_id: row for row, item_id in enumerate(ours.item_ids)}
    items = np.array([0, *(rows.get(item_id, -1) + 1 for item_id in theirs.item_ids)], np.int64)[histories.items]
    # Of a known item our catalogue's category counts: theirs may have moved it.
    known = np.r_[NO_CATEGORY, ours.item_categories][items]
    categories = np.where(items > 0, known, numbers_by_name(theirs, ours)[histories.categories]).astype(np.int32)
    kept = (categories != NO_CATEGORY) | (histories.times < since)
    return replace(
        histories,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])[histories.offsets],
        items=items[kept],
        categories=categories[kept],
        times=histories.times[kept],
    )


def numbers_by_name(theirs: Catalogue, ours: Catalogue) -> NDArray[np.int32]:
    """Give our numbers of another catalogue's top-level categories, by theirs: [C + 1], NO_CATEGORY for strangers."""
    numbers = {name: number for number, name in enumerate(ours.categories, 1)}
    return np.array([NO_CATEGORY, *(numbers.get(name, NO_CATEGORY) for name in theirs.categories)], np.int32)
