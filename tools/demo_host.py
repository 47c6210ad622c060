"""The lists a host would have of its own: what it passes along, so that the channel adds to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.controls import als, popularity, with_trend
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

DEPTH = 100
"""Items of each of the host's lists."""


def host_items(histories: Histories, catalogue: Catalogue, until: int, users: Sequence[int]) -> list[list[str]]:
    """Rank for some users, ascending numbers, by ALS × trend and by the popularity of 28 days, as of a moment.

    Returns the item ids of both lists of every user, each once; none for users without a click.
    """
    known = HeldOut.between(histories, catalogue, until, until)
    statistics = ClickStatistics.of(histories, known)
    scores = (
        with_trend(known, als(known, factors=16, alpha=1.0, seed=0), statistics.trend, exponent=0.5),
        popularity(known, statistics.recent_users),
    )
    chosen = np.asarray(users, np.int64)
    rows = np.concatenate([known.top_k(score, chosen, DEPTH, novel=False) for score in scores], axis=1)
    return [[catalogue.item_ids[row] for row in dict.fromkeys(line.tolist()) if row >= 0] for line in rows]
