"""Numbers about items as of a moment: popularity, freshness, reach; fast enough for many moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.layout import TREND_PRIOR
from serendipity.offline.logs.histories import Histories

_DAY = 86_400
WINDOWS = (7, 28, 90)
"""Days of the windows that clicks are counted in."""


@dataclass(frozen=True)
class ItemStatistics:
    """Statistics of n catalogue rows, from clicks strictly before `time`.

    recent_clicks: [len(WINDOWS), n] int64, clicks in the last WINDOWS[i] days. clicks: [n] int64, ever. users: [n]
    int64, distinct users ever. popularity: [n] float64, Σ 2^(−age / half-life) over clicks. age: [n] int64, seconds
    since the first click, −1 for items not seen yet.
    """

    time: int
    recent_clicks: NDArray[np.int64]
    clicks: NDArray[np.int64]
    users: NDArray[np.int64]
    popularity: NDArray[np.float64]
    age: NDArray[np.int64]

    def log_trend(self, days: int) -> NDArray[np.float64]:
        """Log of the clicks of the last 7, 28 or 90 days against what an item's clicks ever lead to expect: [n].

        Smoothed; 0 for an item that nobody clicked.
        """
        recent, ever = self.recent_clicks[WINDOWS.index(days)], self.clicks.astype(np.float64)
        share = recent.sum() / max(ever.sum(), 1.0)
        trend: NDArray[np.float64] = np.log((recent + TREND_PRIOR) / (ever * share + TREND_PRIOR))
        return trend


class ItemClicks:
    """All clicks in the order of time, from which statistics as of any moment are counted."""

    def __init__(self, histories: Histories, num_items: int) -> None:
        """Sort the clicks once. num_items: rows of the catalogue."""
        self.num_items = num_items
        rows = histories.items - 1
        known = rows >= 0
        order = np.flatnonzero(known)[np.argsort(histories.times[known], kind="stable")]
        self._times = histories.times[order]
        self._rows = rows[order]
        # First click of each (user, item): its position in the order of time.
        pairs = histories.users[order].astype(np.int64) * num_items + self._rows
        first = np.sort(np.unique(pairs, return_index=True)[1])
        self._pair_times = self._times[first]
        self._pair_rows = self._rows[first]
        self._first_times = np.full(num_items, np.iinfo(np.int64).max)
        np.minimum.at(self._first_times, self._pair_rows, self._pair_times)

    def counts(self, start: int | None, end: int) -> NDArray[np.int64]:
        """Count clicks with start ≤ time < end (start None: from the beginning). Returns [n]."""
        first, last = np.searchsorted(self._times, [np.iinfo(np.int64).min if start is None else start, end])
        return np.bincount(self._rows[first:last], minlength=self.num_items)

    def users(self, end: int) -> NDArray[np.int64]:
        """Count the distinct users who clicked before `end`. Returns [n]."""
        return np.bincount(self._pair_rows[: np.searchsorted(self._pair_times, end)], minlength=self.num_items)

    def popularity(self, end: int, half_life_days: float) -> NDArray[np.float64]:
        """Sum 2^(−age / half-life) over the clicks before `end`. Returns [n] float64."""
        last = int(np.searchsorted(self._times, end))
        # A click 40 half-lives old weighs 1e-12: left out, it saves most of the work for short half-lives.
        first = int(np.searchsorted(self._times, end - 40 * half_life_days * _DAY))
        weights = np.exp2((self._times[first:last] - end) / (half_life_days * _DAY))
        return np.bincount(self._rows[first:last], weights=weights, minlength=self.num_items).astype(np.float64)

    def at(self, time: int, half_life_days: float = 14.0) -> ItemStatistics:
        """Count everything as of a moment, from clicks strictly before it."""
        return ItemStatistics(
            time=time,
            recent_clicks=np.stack([self.counts(time - days * _DAY, time) for days in WINDOWS]),
            clicks=self.counts(None, time),
            users=self.users(time),
            popularity=self.popularity(time, half_life_days),
            age=np.where(self._first_times < time, time - self._first_times, -1),
        )
