"""What "novel" means: the one definition that training, serving and evaluation share.

An item is novel to a user when its top-level category does not occur among the user's latest 200
clicks (Dewu, arXiv 2508.04032, section "Experiments"). Which events count as clicks, and which level of the
category path is top-level, is configuration and travels in the snapshot's manifest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLICK_WINDOW = 200
"""Clicks that novelty is judged by."""

NO_CATEGORY = 0
"""Category number of items without a top-level category; such items are never novel."""


@dataclass(frozen=True)
class Clicks:
    """A user's clicks as columns, newest first.

    items: [n] int64, row + 1 in the snapshot's catalogue, 0 for items that are not in it.
    categories: [n] int32, number (index + 1) of the top-level category, NO_CATEGORY for none.
    times: [n] int64, Unix seconds, descending.
    """

    items: NDArray[np.int64]
    categories: NDArray[np.int32]
    times: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.items) == len(self.categories) == len(self.times):
            raise ValueError(
                f"Clicks: columns of different lengths: {len(self.items)} items, "
                f"{len(self.categories)} categories, {len(self.times)} times"
            )

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def empty(cls) -> Clicks:
        """No clicks at all."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))


def latest(*parts: Clicks, window: int = CLICK_WINDOW) -> Clicks:
    """Merge clicks from several places (snapshot, feedback, request) into the latest `window`.

    The same item at the same second is the same click, however many places report it; counting it
    twice would push an older click out of the window and let its category pass as novel. Ties keep
    the order of the parts, so the same input always gives the same window.
    """
    parts = tuple(part for part in parts if len(part))
    items = np.concatenate([part.items for part in parts]) if parts else np.empty(0, np.int64)
    categories = np.concatenate([part.categories for part in parts]) if parts else np.empty(0, np.int32)
    times = np.concatenate([part.times for part in parts]) if parts else np.empty(0, np.int64)
    order = np.argsort(-times, kind="stable")
    if len(parts) > 1 and len(order):
        # Items outside the catalogue (0) cannot be told apart, so they are never merged.
        keys = np.stack([items[order], times[order]])
        _, first = np.unique(keys, axis=1, return_index=True)
        keep = items[order] == 0
        keep[first] = True
        order = order[keep]
    order = order[:window]
    return Clicks(items[order], categories[order], times[order])


def clicked_categories(clicks: Clicks, num_categories: int, window: int = CLICK_WINDOW) -> NDArray[np.bool_]:
    """Mark the top-level categories among the latest `window` clicks.

    Returns [num_categories + 1] bool by category number; entry NO_CATEGORY is always True, since an
    item without a category cannot be shown to be novel.
    """
    clicked = np.zeros(num_categories + 1, dtype=np.bool_)
    clicked[clicks.categories[:window]] = True
    clicked[NO_CATEGORY] = True
    return clicked


def is_novel(item_categories: NDArray[np.int32], clicked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which items are novel. item_categories: [n] numbers; clicked: as from `clicked_categories`."""
    return ~clicked[item_categories]


def unexpectedness(category_vectors: NDArray[np.float32], clicks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure how far categories lie from those that a user clicks in: 1 − cos(category, centre), at most 1.

    category_vectors: [c + 1, k] of length 1 or 0, alike where the same users click; clicks: [c + 1] of the user by
    category, of which the logarithm counts. Returns [c + 1]; all 1 without a history, since then nothing is expected.
    """
    centre = np.log1p(clicks) @ category_vectors
    length = np.linalg.norm(centre)
    if not length:
        return np.ones(len(clicks), np.float32)
    result: NDArray[np.float32] = np.clip(1 - category_vectors @ (centre / length), 0, 1)
    return result
