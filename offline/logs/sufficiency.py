"""Whether a channel can be built of logs at all: told before hours of building, not after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from serendipity.novelty import CLICK_WINDOW
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.parquet import sql_text


@dataclass(frozen=True)
class Wanted:
    """What a build needs. asked: candidates asked for; fill: least mean share of them that can come; empty: largest
    share of users who get none; item_users: users an item needs before anything is learned of it; learned: shares of
    the clicks between which the labels of the towers' first training lie.

    And its parts: history: clicks of a user who is to be in a group; groups: how many there are to be; positives:
    candidates that came true, for a merge model; days: of logs, for InterestGPT.
    """

    asked: int
    fill: float
    empty: float
    item_users: int
    learned: tuple[float, float]
    history: int
    groups: int
    positives: int
    days: float


@dataclass(frozen=True)
class Room:
    """What is left to recall where a level of the category path is top-level.

    categories: with an item that may be recalled; fill: mean share of the candidates asked for that are there in
    categories which a user has not clicked lately; empty: share of users for whom none is.
    """

    level: int
    categories: int
    fill: float
    empty: float

    def suffices(self, wanted: Wanted) -> bool:
        """Tell whether novelty can be judged by this level."""
        return self.categories > 1 and self.fill >= wanted.fill and self.empty <= wanted.empty


def require_sufficient(logs: Path, wanted: Wanted) -> None:
    """Raise LogsError, naming every lack, where no channel can be built of a logs directory."""
    with duckdb.connect() as connection:
        open_views(connection, logs)
        level = LogsSummary.read(logs).novelty_level
        if found := insufficiencies(connection, level, wanted, lambda level: room_of(connection, level, wanted.asked)):
            raise LogsError("; ".join(found))


def insufficiencies(
    connection: duckdb.DuckDBPyConnection, level: int, wanted: Wanted, room_at: Callable[[int], Room]
) -> list[str]:
    """Tell what keeps a channel from being built of logs, a line each. level: the configured one; room_at: of any."""
    found = _lacks(connection, wanted)
    if found or (room := room_at(level)).suffices(wanted):
        return found
    others = (room_at(other) for other in range(depth_of(connection)) if other != level)
    better = next((other for other in others if other.suffices(wanted)), None)
    advice = f"level {better.level} would do" if better else "no other level would do: lower canary.count, or gate"
    return [
        f"novelty at level {level} (logs.novelty_level): found {room.categories:,} top-level categories with items "
        f"that may be recalled, and outside those a user clicked lately {room.fill:.1%} of the {wanted.asked} "
        f"candidates asked for, none for {room.empty:.1%} of the users; expected at least 2, {wanted.fill:.0%} and at "
        f"most {wanted.empty:.0%} (canary.count, gate.min_fill, gate.max_empty); {advice}"
    ]


def open_views(connection: duckdb.DuckDBPyConnection, logs: Path) -> None:
    """Make the tables of a logs directory views of the same names."""
    for name in ("catalogue", "clicks", "searches", "exposures", "signals", "rejected"):
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet({sql_text(logs / f'{name}.parquet')})")


def depth_of(connection: duckdb.DuckDBPyConnection) -> int:
    """Levels of the longest category path."""
    found = connection.execute("SELECT coalesce(max(len(path)), 0) FROM catalogue").fetchone()
    return int(found[0]) if found else 0


def room_of(connection: duckdb.DuckDBPyConnection, level: int, asked: int) -> Room:
    """Tell what a level leaves to recall to those who clicked. asked: candidates a user is asked for."""
    found = connection.execute(
        f"""
        WITH kinds AS (SELECT row + 1 AS item, available, path[{level + 1}] AS category FROM catalogue),
        items AS (SELECT category, count(*) AS n FROM kinds WHERE available AND category IS NOT NULL GROUP BY 1),
        latest AS (
            SELECT "user", item FROM clicks
            QUALIFY row_number() OVER (PARTITION BY "user" ORDER BY time DESC, item) <= {CLICK_WINDOW}
        ),
        touched AS (SELECT DISTINCT "user", category FROM latest JOIN kinds USING (item)),
        novel AS (
            SELECT (SELECT coalesce(sum(n), 0) FROM items) - coalesce(sum(n), 0) AS items
            FROM touched LEFT JOIN items USING (category) GROUP BY "user"
        )
        SELECT (SELECT count(*) FROM items), coalesce(avg(least(1, items / {asked})), 0),
               coalesce(avg((items = 0)::INT), 1)
        FROM novel
        """
    ).fetchone()
    categories, fill, empty = found or (0, 0.0, 1.0)
    return Room(level, int(categories), float(fill), float(empty))


def _lacks(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> list[str]:
    users, clicked, known, available, categories, labels = (
        connection.execute(
            """
        WITH span AS (
            SELECT quantile_disc(time, $earliest::DOUBLE) AS start, quantile_disc(time, $latest::DOUBLE) AS stop
            FROM clicks
        ),
        firsts AS (SELECT "user", item, min(time) AS time FROM clicks GROUP BY ALL),
        begun AS (SELECT "user", min(time) AS begin FROM clicks GROUP BY ALL)
        SELECT (SELECT count(DISTINCT "user") FROM clicks), (SELECT count(DISTINCT item) FROM clicks),
               (SELECT count(*) FROM (SELECT item FROM clicks GROUP BY 1 HAVING count(DISTINCT "user") >= $item_users)),
               (SELECT count(*) FROM catalogue WHERE available),
               (SELECT count(DISTINCT category) FROM catalogue WHERE available),
               (SELECT count(*) FROM firsts JOIN begun USING ("user"), span
                   WHERE begin < time AND time BETWEEN start AND stop - 1)
        """,
            {"item_users": wanted.item_users, "earliest": wanted.learned[0], "latest": wanted.learned[1]},
        ).fetchone()
        or (0,) * 6
    )
    checks = (
        (users, "users with clicks (logs.click_types)", wanted.item_users),
        (clicked, "items that were clicked", 2),
        (known, f"items clicked by {wanted.item_users} users or more (towers.rows.min_item_users)", 2),
        (labels, "clicks of returning users on items new to them, before the latest (towers.rows.label_window)", 1),
        (available, "items that may be recalled", 2),
        (categories, "top-level categories with items that may be recalled (path, logs.novelty_level)", 1),
    )
    return [f"{what}: found {found}, expected at least {least}" for found, what, least in checks if found < least]
