"""What is counted of the clicks before a cut: what the controls rank by, and what targets are told apart by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.histories import Histories

RECENT_DAYS = 28
"""Days before the cut that count as recent: popularity, trend, and items that are new to the catalogue."""

_PRIOR = 4.0
"""Users' worth of the overall share of recent users mixed into every item's."""


@dataclass(frozen=True)
class ClickStatistics:
    """Counts as of a cut, over n items, U users and C categories.

    users, recent_users: [n] float32 distinct users of each item, ever and in the last RECENT_DAYS. first_clicks: [n]
    int64 Unix seconds of the first click; the cut where there is none. own_clicks: [U, C + 1] float32 clicks of each
    user by top-level category, ever.
    """

    users: NDArray[np.float32]
    recent_users: NDArray[np.float32]
    first_clicks: NDArray[np.int64]
    own_clicks: NDArray[np.float32]

    @classmethod
    def of(cls, histories: Histories, held_out: HeldOut) -> ClickStatistics:
        """Count the clicks before held_out.cut; later ones are not looked at."""
        cut, num_items = held_out.cut, len(held_out.item_categories)
        known = (histories.times < cut) & (histories.items > 0)
        owners, rows, times = (
            histories.users[known].astype(np.int64),
            histories.items[known] - 1,
            histories.times[known],
        )
        recent = times >= cut - RECENT_DAYS * 86_400
        pairs = np.unique(owners[recent] * num_items + rows[recent])
        first_clicks = np.full(num_items, cut, np.int64)
        np.minimum.at(first_clicks, rows, times)
        own_clicks = np.zeros(held_out.clicked.shape, np.float32)
        np.add.at(own_clicks, (owners, held_out.item_categories[rows]), 1)
        return cls(
            users=np.asarray(held_out.seen.sum(axis=0), np.float32).ravel(),
            recent_users=np.bincount(pairs % num_items, minlength=num_items).astype(np.float32),
            first_clicks=first_clicks,
            own_clicks=own_clicks,
        )

    @property
    def trend(self) -> NDArray[np.float32]:
        """[n] share of an item's users that came in the last RECENT_DAYS, relative to that of all items.

        (u₂₈ + a·s) / (u + a) / s, with s = Σ u₂₈ / Σ u and a = 4 users: an item hardly anybody clicked has trend 1.
        """
        overall = max(float(self.recent_users.sum()) / max(float(self.users.sum()), 1.0), 1e-9)
        trend = (self.recent_users + _PRIOR * overall) / (self.users + _PRIOR) / overall
        return trend.astype(np.float32)

    @property
    def never(self) -> NDArray[np.bool_]:
        """[U, C + 1] whether the user never clicked in the category; the others that are novel are re-entries."""
        never: NDArray[np.bool_] = self.own_clicks == 0
        never[:, NO_CATEGORY] = False
        return never
