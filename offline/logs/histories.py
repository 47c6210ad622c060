"""User histories: every click of every user, and what was known of a user at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.features import LongHistory
from serendipity.novelty import CLICK_WINDOW, Clicks
from serendipity.offline.logs.catalogue import logs_directory
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.tables import read_columns, read_rows

_DAY = 86_400


def _nothing() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Histories:
    """Clicks and searches of U users; user u's clicks are [offsets[u], offsets[u + 1]), ascending by (time, item id).

    user_ids: list of U, sorted. profiles: attribute → value, by user. offsets: [U + 1] int64. items: [n] int64,
    row + 1 in the catalogue. categories: [n] int32, number of the top-level category, 0 = none. times: [n] int64,
    Unix seconds. search_offsets: [U + 1] int64 into searches and search_times, ascending by time. signal_offsets:
    [U + 1] int64 into signal_items (row + 1) and signal_times, views and the like, ascending by time; all three are
    empty where none were kept.
    """

    user_ids: list[str]
    profiles: list[dict[str, str]]
    offsets: NDArray[np.int64]
    items: NDArray[np.int64]
    categories: NDArray[np.int32]
    times: NDArray[np.int64]
    search_offsets: NDArray[np.int64]
    searches: list[str]
    search_times: NDArray[np.int64]
    signal_offsets: NDArray[np.int64] = field(default_factory=_nothing)
    signal_items: NDArray[np.int64] = field(default_factory=_nothing)
    signal_times: NDArray[np.int64] = field(default_factory=_nothing)

    def __len__(self) -> int:
        return len(self.user_ids)

    @cached_property
    def user_numbers(self) -> dict[str, int]:
        """User id → number u."""
        return {user_id: number for number, user_id in enumerate(self.user_ids)}

    @cached_property
    def users(self) -> NDArray[np.int32]:
        """[n] int32, the user of each click."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    @classmethod
    def read(cls, path: Path) -> Histories:
        """Read the logs directory (or the build directory above it).

        Raises LogsError when a table is missing, cannot be read or is not in the builder's order.
        """
        logs = logs_directory(path)
        users = read_rows(logs / "users.parquet", "user_id, attributes")
        clicks = read_columns(logs / "clicks.parquet", '"user", item, category, time')
        search_users = read_columns(logs / "searches.parquet", '"user", time')
        signals = read_columns(logs / "signals.parquet", '"user", item, time')
        owner, times = clicks["user"].astype(np.int64), clicks["time"].astype(np.int64)
        step = np.diff(owner)
        if np.any(step < 0) or np.any((step == 0) & (np.diff(times) < 0)):
            raise LogsError(
                f"{logs / 'clicks.parquet'}: rows are not sorted by user and time; expected the builder's order"
            )
        bounds = np.arange(len(users) + 1)
        return cls(
            user_ids=[row[0] for row in users],
            profiles=[dict(row[1]) for row in users],
            offsets=np.searchsorted(owner, bounds).astype(np.int64),
            items=clicks["item"].astype(np.int64),
            categories=clicks["category"].astype(np.int32),
            times=times,
            search_offsets=np.searchsorted(search_users["user"], bounds).astype(np.int64),
            searches=[row[0] for row in read_rows(logs / "searches.parquet", "query")],
            search_times=search_users["time"].astype(np.int64),
            signal_offsets=np.searchsorted(signals["user"], bounds).astype(np.int64),
            signal_items=signals["item"].astype(np.int64),
            signal_times=signals["time"].astype(np.int64),
        )

    def count_before(self, user: int, time: int) -> int:
        """Count the user's clicks strictly before a moment."""
        start, end = self.offsets[user], self.offsets[user + 1]
        return int(np.searchsorted(self.times[start:end], time))

    def clicks_before(self, user: int, time: int, window: int = CLICK_WINDOW) -> Clicks:
        """Take the latest `window` clicks strictly before a moment, newest first.

        Clicks of the same second come in descending item id: the exact reverse of the stored order, everywhere.
        """
        start = int(self.offsets[user])
        end = start + self.count_before(user, time)
        chosen = slice(max(start, end - window), end)
        return Clicks(self.items[chosen][::-1], self.categories[chosen][::-1], self.times[chosen][::-1])

    def long_history_before(self, user: int, time: int) -> LongHistory:
        """Sum up every top-level category clicked strictly before a moment.

        Most clicked first; ties: the latest clicked, then the smallest number, as in serendipity.features.with_clicks.
        """
        start = int(self.offsets[user])
        end = start + self.count_before(user, time)
        clicked = self.categories[start:end]
        counts = np.bincount(clicked)
        counts[:1] = 0  # NO_CATEGORY
        found = np.flatnonzero(counts).astype(np.int32)
        last_times = np.zeros(len(counts), np.int64)
        # Ascending times: of several writes to one place the last, which is the latest, stays.
        last_times[clicked] = self.times[start:end]
        order = np.lexsort((found, -last_times[found], -counts[found]))
        found = found[order]
        return LongHistory(found, counts[found].astype(np.int32), last_times[found])

    def searches_before(self, user: int, time: int, days: float = 30) -> list[tuple[str, int]]:
        """List the searches of the `days` before a moment as (query, Unix seconds), newest first."""
        start, end = int(self.search_offsets[user]), int(self.search_offsets[user + 1])
        times = self.search_times[start:end]
        first, last = np.searchsorted(times, [time - round(days * _DAY), time])
        return [(self.searches[start + i], int(times[i])) for i in range(int(last) - 1, int(first) - 1, -1)]

    def signals_before(self, user: int, time: int, days: float = 30) -> list[tuple[int, int]]:
        """List the signals of the `days` before a moment as (item row + 1, Unix seconds), newest first, items once."""
        if not len(self.signal_items):
            return []
        start, end = int(self.signal_offsets[user]), int(self.signal_offsets[user + 1])
        times = self.signal_times[start:end]
        first, last = np.searchsorted(times, [time - round(days * _DAY), time])
        latest: dict[int, int] = {}
        for i in range(int(last) - 1, int(first) - 1, -1):
            latest.setdefault(int(self.signal_items[start + i]), int(times[i]))
        return list(latest.items())


def before(histories: Histories, until: int) -> Histories:
    """Leave out every click and search at or after a moment."""
    clicks, searches = histories.times < until, histories.search_times < until
    search_users = np.repeat(np.arange(len(histories)), np.diff(histories.search_offsets))
    bounds = np.arange(len(histories) + 1)
    return Histories(
        user_ids=histories.user_ids,
        profiles=histories.profiles,
        offsets=np.searchsorted(histories.users[clicks], bounds).astype(np.int64),
        items=histories.items[clicks],
        categories=histories.categories[clicks],
        times=histories.times[clicks],
        search_offsets=np.searchsorted(search_users[searches], bounds).astype(np.int64),
        searches=[query for query, kept in zip(histories.searches, searches.tolist(), strict=True) if kept],
        search_times=histories.search_times[searches],
    )


def profile_fields(histories: Histories) -> dict[str, dict[str, int]]:
    """Number every profile value that occurs, from 1: fields and their values in alphabetical order."""
    values: dict[str, set[str]] = {}
    for profile in histories.profiles:
        for name, value in profile.items():
            values.setdefault(name, set()).add(value)
    return {name: {value: number for number, value in enumerate(sorted(values[name]), 1)} for name in sorted(values)}


def split_times(histories: Histories | Path, fractions: Sequence[float] = (0.8, 0.9)) -> tuple[int, ...]:
    """Find the moments that split all clicks by count: about fractions[i] of them lie strictly before moment i.

    Takes histories or a logs directory. Clicks of the same second fall on one side, the later. Raises ValueError
    without clicks.
    """
    times = histories.times if isinstance(histories, Histories) else Histories.read(histories).times
    if not len(times):
        raise ValueError("split_times: found no clicks, expected at least one")
    places = [min(int(fraction * len(times)), len(times) - 1) for fraction in fractions]
    ordered = np.partition(times, places)
    return tuple(int(ordered[place]) for place in places)
