"""What is known of a candidate: features for the merge model and for the host's ranker, and what candidates are worth.

Shared by the channel, which makes them, and the builders, which learn from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity import layout

_SOURCES = ("interest", "collaborative", "group", "graph")
"""In the order of serendipity.channel.recall.query.SOURCES."""

FEATURE_NAMES = (
    "unexpectedness",
    "novel",
    "interest_weight",
    "alignment",
    "alignment_recent",
    "category_clicks",
    "category_days",
    *layout.ITEM_STATISTICS_COLUMNS,
    *(
        f"{source}_{part}"
        for source in ("interest", "collaborative", "group", "graph")
        for part in ("score", "reciprocal_rank")
    ),
)
"""Columns of the rank features, which the merge model reads as well.

interest_weight: of the interest that leads the interest source to the item. alignment: of the item's category on the
group's list, 0 where it is not on it; alignment_recent: how many of the user's latest categories that list is for (m),
−1 for the list of the default group, 0 again where the category is not on it. category_clicks, category_days:
log(1 + n) of the user's clicks in the item's category, ever, and of the days since the last, 3,650 for none. A source's
score is its raw one, of every item that it can score, found or not, and 0 of others; its reciprocal rank is 1 for its
best item, 0 where it did not find it."""

_CLICKS, _TREND = (layout.ITEM_STATISTICS_COLUMNS.index(name) for name in ("item_clicks_28d", "item_trend_28d"))

_GAMMA = 2.0
"""Power of unexpectedness at surprise 1."""

_LEAST_UNEXPECTED = 0.05
"""Unexpectedness below which less does not count."""


def popularity(statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clicks of 28 days, and as many again as an item's clicks ever lead to expect: where few click, those tell more.

    statistics: [n, S], columns layout.ITEM_STATISTICS_COLUMNS; returns [n], 0 for what nobody clicked.
    """
    clicks = np.expm1(statistics[:, _CLICKS])
    expected = (clicks + layout.TREND_PRIOR) / np.exp(statistics[:, _TREND]) - layout.TREND_PRIOR
    values: NDArray[np.float32] = (clicks + np.maximum(expected, 0)).astype(np.float32)
    return values


def worth(scores: NDArray[np.float32], unexpectedness: NDArray[np.float32], surprise: float) -> NDArray[np.float32]:
    """Weigh scores by unexpectedness: s · max(u, 0.05)^(2·surprise). Of any shape, the same; surprise: 0 to 1."""
    values: NDArray[np.float32] = scores * np.maximum(unexpectedness, _LEAST_UNEXPECTED) ** np.float32(
        _GAMMA * surprise
    )
    return values.astype(np.float32)
