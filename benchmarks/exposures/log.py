"""What was shown to whom, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from serendipity.layout import hash_of
from serendipity.novelty import clicked_categories, is_novel
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.parquet import sql_text


@dataclass(frozen=True)
class ExposureLog:
    """n exposures, ascending by (user, time, row).

    users: [n] int64 user numbers; rows: [n] int64 item rows; times: [n] int64 Unix seconds; clicked, liked: [n] bool, a
    click or favourite of the same user, item and second; seconds: [n] float64, the exposure's value: what was played;
    tabs: [n] int64, where it was shown. categories: [n] int32 numbers of the top-level category; deep: [n] int32, of
    the first three levels of the path. novel: [n] bool, the top-level category is not among the user's latest 200
    clicks strictly before the exposure.
    """

    users: NDArray[np.int64]
    rows: NDArray[np.int64]
    times: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    liked: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    tabs: NDArray[np.int64]
    categories: NDArray[np.int32]
    deep: NDArray[np.int32]
    novel: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def read(cls, host: Path, histories: Histories, catalogue: Catalogue) -> ExposureLog:
        """Read a host folder whose exposures have a column `tab`. histories, catalogue: of its logs, all of them."""
        events = f"read_parquet({sql_text(host / 'events.parquet')})"
        same = "(user_id, item_id, timestamp)"
        with duckdb.connect() as connection:
            found = connection.execute(
                f"""
                SELECT user_id, item_id, timestamp, value, tab,
                       {same} IN (SELECT {same} FROM {events} WHERE event = 'click') AS clicked,
                       {same} IN (SELECT {same} FROM {events} WHERE event = 'favourite') AS liked
                FROM {events} WHERE event = 'exposure'
                """
            ).fetchnumpy()
        row_of = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
        users = np.array([histories.user_numbers[user_id] for user_id in found["user_id"].tolist()], np.int64)
        rows = np.array([row_of[item_id] for item_id in found["item_id"].tolist()], np.int64)
        times = np.asarray(found["timestamp"], np.int64)
        order = np.lexsort((rows, times, users))
        users, rows, times = users[order], rows[order], times[order]
        categories = catalogue.item_categories[rows]
        paths = {path: number for number, path in enumerate(sorted({path[:3] for path in catalogue.paths}))}
        return cls(
            users=users,
            rows=rows,
            times=times,
            clicked=np.asarray(found["clicked"], np.bool_)[order],
            liked=np.asarray(found["liked"], np.bool_)[order],
            seconds=np.asarray(found["value"], np.float64)[order],
            tabs=np.asarray(found["tab"], np.int64)[order],
            categories=categories,
            deep=np.array([paths[path[:3]] for path in catalogue.paths], np.int32)[rows],
            novel=_novel(histories, len(catalogue.categories), users, times, categories),
        )

    @property
    def identity(self) -> bytes:
        """Tell what is scored apart from other logs."""
        return hash_of([self.users.tobytes(), self.rows.tobytes(), self.times.tobytes()]).encode()

    def take(self, where: NDArray[np.bool_]) -> ExposureLog:
        """Keep the exposures that a mask, [n], marks."""
        return ExposureLog(*(getattr(self, field.name)[where] for field in fields(self)))

    def between(self, start: int, end: int) -> ExposureLog:
        """Keep the exposures of [start, end), Unix seconds."""
        return self.take((self.times >= start) & (self.times < end))


def click_rates(log: ExposureLog, numbers: NDArray[np.integer[Any]], size: int, prior: float) -> NDArray[np.float64]:
    """Click rates of what was shown, by number, [size]. numbers: [n], of each exposure; prior: exposures' worth of the
    overall click rate mixed into every one."""
    shown = np.bincount(numbers, minlength=size)
    clicked = np.bincount(numbers[log.clicked], minlength=size)
    overall = float(log.clicked.mean()) if len(log) else 0.0
    rates: NDArray[np.float64] = (clicked + prior * overall) / (shown + prior)
    return rates


def _novel(
    histories: Histories,
    num_categories: int,
    users: NDArray[np.int64],
    times: NDArray[np.int64],
    categories: NDArray[np.int32],
) -> NDArray[np.bool_]:
    novel = np.zeros(len(users), np.bool_)
    for place, (user, time) in enumerate(zip(users.tolist(), times.tolist(), strict=True)):
        clicked = clicked_categories(histories.clicks_before(user, time), num_categories)
        novel[place] = is_novel(categories[place : place + 1], clicked)[0]
    return novel
