"""The lists a host would have of its own: what it passes along, so that the channel adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.controls import als, popularity, with_trend
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

DEPTH = 100
"""Items of each of the host's lists."""


@dataclass(frozen=True)
class HostLists:
    """What a host would show a user: have, item ids of both its lists; novel, rows of the most popular novel items."""

    have: list[str]
    novel: list[int]


def host_lists(histories: Histories, catalogue: Catalogue, until: int, users: Sequence[int]) -> list[HostLists]:
    """Rank for some users, ascending numbers, by ALS × trend and by the popularity of 28 days, as of a moment.

    Nothing for users without a click.
    """
    known = HeldOut.between(histories, catalogue, until, until)
    statistics = ClickStatistics.of(histories, known)
    popular = popularity(known, statistics.recent_users)
    by_als = with_trend(known, als(known, factors=16, alpha=1.0, seed=0), statistics.trend, exponent=0.5)
    chosen = np.asarray(users, np.int64)
    rows = np.concatenate([known.top_k(score, chosen, DEPTH, novel=False) for score in (by_als, popular)], axis=1)
    novel = known.top_k(popular, chosen, DEPTH, novel=True)
    return [
        HostLists(
            [catalogue.item_ids[row] for row in dict.fromkeys(line) if row >= 0], [row for row in best if row >= 0]
        )
        for line, best in zip(rows.tolist(), novel.tolist(), strict=True)
    ]
