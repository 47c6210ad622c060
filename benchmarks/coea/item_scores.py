"""From scores of items to scores of categories, for the methods that rank items."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import Episodes
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

Pooling = Literal["logsumexp", "max"]
"""A category is worth log Σ exp of its items' scores (of log-odds or log-probabilities: the category's), or its best
item's."""


def category_scores(
    item_scores: NDArray[np.float32], catalogue: Catalogue, pooling: Pooling, temperature: float = 1.0
) -> NDArray[np.float32]:
    """Pool scores by category. item_scores: [b, n] by catalogue row, −inf: left out. Returns [b, C].

    temperature: item scores are divided by it before they are exponentiated (logsumexp only).
    """
    num_categories = len(catalogue.categories)
    pooled = np.full((len(item_scores), num_categories), -np.inf, np.float32)
    # The catalogue is sorted by category, so each is a slice.
    for category in range(num_categories):
        start, end = catalogue.category_offsets[category : category + 2].tolist()
        if start == end:
            continue
        scores = item_scores[:, start:end].astype(np.float64)
        best = scores.max(axis=1)
        if pooling == "logsumexp":
            finite = np.where(np.isneginf(best), 0.0, best)
            with np.errstate(divide="ignore"):
                sums = np.log(np.exp((scores - finite[:, None]) / temperature).sum(axis=1))
            best = finite / temperature + sums
        pooled[:, category] = best
    return pooled


def items_repeat(histories: Histories) -> bool:
    """Tell whether users ever click the same item twice: where not (MovieLens), clicked items are no candidates."""
    pairs = histories.users.astype(np.int64) * (int(histories.items.max(initial=0)) + 1) + histories.items
    return len(np.unique(pairs)) < len(pairs)


def leave_out_clicked(item_scores: NDArray[np.float32], episodes: Episodes, rows: slice) -> None:
    """Set the items of the histories of some rows of the episodes to −inf, in place. item_scores: [b, n]."""
    histories = episodes.histories
    for place, user in enumerate(episodes.users[rows].tolist()):
        items = histories.items[histories.offsets[user] : histories.offsets[user + 1]]
        item_scores[place, items[items > 0] - 1] = -np.inf
