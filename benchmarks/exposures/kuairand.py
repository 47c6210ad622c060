"""KuaiRand's exposures of short videos as host files (docs/host-schema.md).

Reads three Parquet files of a slice of KuaiRand-Pure (kuairand.com, CC BY-SA 4.0):

    exposures.parquet   user_id, video_id, time_ms, is_click, play_time_ms, is_like, is_hate, tab
    histories.parquet   user_id, last_time_ms, watch_seq: earlier watches, oldest first
    items.parquet       video_id, author_id, video_type, tag: "39" or "39,68", "unknown"

A video's path is its tags in their order, so that the first tag is top-level; the author is its brand. An exposure is
an `exposure` with the seconds played as its value and the tab it was shown in as a further column, and where it was
clicked, liked or hated, a `click`, `favourite` or `not_interested` of the same second. Exposures of one user, video and
second are one. A watch is a `click`.

**Times of watches are made up, all but each user's last.** The log keeps their order alone. The earlier ones are spread
evenly from 2022-04-09, the day the first videos were uploaded, to the last watch or to 2022-04-24, whichever is first.
So how popular a video was on a day before 2022-04-25, and how old a user's interest is, is known roughly at best.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from serendipity.offline.datasets.adapter import DatasetError
from serendipity.offline.parquet import sql_text, write_query

EXPOSED_FROM = int(datetime(2022, 4, 24, 16, tzinfo=UTC).timestamp())
"""Midnight of 25 April in Beijing, Unix seconds: from there on exposures are logged, but for 141 of the hour before."""

_FIRST_WATCH = int(datetime(2022, 4, 9, tzinfo=UTC).timestamp())
_LAST_MADE_UP = int(datetime(2022, 4, 24, tzinfo=UTC).timestamp())

_COLUMNS: Mapping[str, frozenset[str]] = {
    "exposures": frozenset(("user_id", "video_id", "time_ms", "is_click", "play_time_ms", "is_like", "is_hate", "tab")),
    "histories": frozenset(("user_id", "last_time_ms", "watch_seq")),
    "items": frozenset(("video_id", "author_id", "video_type", "tag")),
}


def write_kuairand(source: Path, host: Path, least_exposures: int = 0) -> None:
    """Write events.parquet and items.parquet into the folder `host`, of users with so many exposures at least.

    Raises DatasetError for a file that is missing or cannot be read, or lacks a column.
    """
    host.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        for name, expected in _COLUMNS.items():
            _open(connection, source / f"{name}.parquet", name, expected)
        write_query(
            connection,
            """
            SELECT video_id::VARCHAR AS item_id, 'video ' || video_id AS title, string_split(tag, ',') AS path,
                   author_id::VARCHAR AS brand, [video_type] AS tags
            FROM items ORDER BY video_id
            """,
            host / "items.parquet",
        )
        write_query(connection, _EVENTS.format(least_exposures=least_exposures), host / "events.parquet")


def _open(connection: duckdb.DuckDBPyConnection, file: Path, name: str, expected: frozenset[str]) -> None:
    """Make a view of a file."""
    if not file.is_file():
        raise DatasetError(f"{file}: missing; expected a file of the KuaiRand slice")
    try:
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet({sql_text(file)})")
    except duckdb.Error as error:
        raise DatasetError(f"{file}: cannot be read as Parquet ({error})") from error
    found = [str(row[0]) for row in connection.execute(f"DESCRIBE {name}").fetchall()]
    if missing := sorted(expected - set(found)):
        raise DatasetError(f"{file}: found columns {', '.join(found)}, expected {', '.join(missing)} as well")


_EVENTS = f"""
    WITH shown AS (
        SELECT user_id, video_id, time_ms // 1000 AS timestamp, max(is_click) AS is_click, max(is_like) AS is_like,
               max(is_hate) AS is_hate, max(play_time_ms) / 1000 AS seconds, min(tab) AS tab
        FROM exposures GROUP BY ALL
    ),
    watched AS (
        SELECT user_id, unnest(watch_seq) AS video_id, generate_subscripts(watch_seq, 1) AS place,
               len(watch_seq) AS watches, last_time_ms // 1000 AS last
        FROM histories
    ),
    events AS (
        SELECT user_id, video_id, 'exposure' AS event, timestamp, seconds AS value, tab FROM shown
        UNION ALL BY NAME SELECT user_id, video_id, 'click' AS event, timestamp FROM shown WHERE is_click = 1
        UNION ALL BY NAME SELECT user_id, video_id, 'favourite' AS event, timestamp FROM shown WHERE is_like = 1
        UNION ALL BY NAME SELECT user_id, video_id, 'not_interested' AS event, timestamp FROM shown WHERE is_hate = 1
        UNION ALL BY NAME SELECT user_id, video_id, 'click' AS event, CASE WHEN place = watches THEN last ELSE
            {_FIRST_WATCH} + (least(last, {_LAST_MADE_UP}) - {_FIRST_WATCH}) * (place - 1) // watches END AS timestamp
        FROM watched
    )
    SELECT user_id::VARCHAR AS user_id, video_id::VARCHAR AS item_id, event, timestamp, value::DOUBLE AS value,
           tab::INTEGER AS tab
    FROM events
    WHERE {{least_exposures}} = 0
        OR user_id IN (SELECT user_id FROM shown GROUP BY user_id HAVING count(*) >= {{least_exposures}})
    ORDER BY timestamp, user_id, event, item_id
"""
