"""From scores of items to scores of categories, for what ranks items."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import Episodes
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


def category_scores(item_scores: NDArray[np.float32], catalogue: Catalogue) -> NDArray[np.float32]:
    """Pool by category: log Σ exp of its items' log-probabilities. item_scores: [b, n] by catalogue row, −inf: left
    out. Returns [b, C]."""
    pooled = np.full((len(item_scores), len(catalogue.categories)), -np.inf, np.float32)
    # The catalogue is sorted by category, so each is a slice.
    for category, (start, end) in enumerate(pairwise(catalogue.category_offsets.tolist())):
        if start < end:
            pooled[:, category] = np.logaddexp.reduce(item_scores[:, start:end].astype(np.float64), axis=1)
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
