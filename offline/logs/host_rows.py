"""A host's tables as typed rows, every row with the reason why it is rejected, if any."""

from __future__ import annotations

import duckdb

from serendipity.event_times import EARLIEST_TIME
from serendipity.ids import CONTROL_CHARACTERS, MAX_ID_LENGTH
from serendipity.offline.logs.host_table import Host, HostTable, identifier
from serendipity.offline.logs.schema import CLOCK_TOLERANCE, EVENT_TYPES, MAX_PATH_LEVELS
from serendipity.offline.parquet import sql_text

REPEATED = ("duplicate_event", "duplicate_item", "duplicate_user")
"""Reasons that count no row against the share that may be rejected: what the row says is there already."""


def load_items(connection: duckdb.DuckDBPyConnection, host: Host) -> None:
    """Make table host_items: the columns of items, source, source_row, reason.

    Of a path the levels before the first that shows nothing are kept where all that follow show nothing either.
    """
    table = host.require("items")
    connection.execute(
        f"""
        CREATE TEMP TABLE host_items AS
        SELECT * EXCLUDE (unreadable, blank) REPLACE (
            coalesce(title, '') AS title, coalesce(brand, '') AS brand, coalesce(available, true) AS available,
            list_filter(coalesce(tags, []), lambda tag: tag IS NOT NULL) AS tags, path[:blank - 1] AS path
        ), CASE
            {_bad_id("item_id")}
            {_UNREADABLE}
            WHEN len(path) > {MAX_PATH_LEVELS} THEN 'path_levels'
            WHEN len(list_filter(path[blank:], lambda level: level <> '')) > 0 THEN 'empty_path_level'
            WHEN len(list_filter(path, lambda level: level <> '' AND ({_is_no_id("level")}))) > 0
                THEN 'invalid_path_level'
            WHEN price IS NOT NULL AND NOT isfinite(price) THEN 'price_not_finite'
            WHEN row_number() OVER (PARTITION BY item_id ORDER BY source, source_row) > 1 THEN 'duplicate_item'
            END AS reason
        FROM (
            SELECT *, coalesce(list_position(path, ''), len(path) + 1) AS blank
            FROM (
                SELECT * REPLACE (list_transform(coalesce(path, []), lambda level: {_LEVEL}) AS path)
                FROM (SELECT {table.columns} FROM {table.source})
            )
        )
        """
    )


def load_events(connection: duckdb.DuckDBPyConnection, host: Host, now: int, until: int | None) -> None:
    """Make table host_events: the columns of events (time for timestamp), source, source_row, reason.

    Events at or after `until` are left out: as of that moment they do not exist. Needs host_items.
    """
    table = host.require("events")
    latest = now + CLOCK_TOLERANCE
    names = ", ".join(f"'{name}'" for name in EVENT_TYPES)
    connection.execute(
        f"""
        CREATE TEMP TABLE host_events AS
        SELECT typed.* EXCLUDE (unreadable), CASE
            {_bad_id("user_id")}
            WHEN event IS NULL OR event NOT IN ({names}) THEN 'unknown_event'
            {_UNREADABLE}
            WHEN time IS NULL THEN 'missing_timestamp'
            WHEN time < {EARLIEST_TIME} THEN 'timestamp_before_1990'
            WHEN time > {latest} AND {_in_fractions(latest)} THEN 'timestamp_not_in_seconds'
            WHEN time > {latest} THEN 'timestamp_in_future'
            WHEN event = 'search' AND trim(coalesce(query, '')) = '' THEN 'missing_query'
            WHEN event <> 'search' AND coalesce(item_id, '') = '' THEN 'missing_item_id'
            WHEN event <> 'search' AND known.taken IS NULL THEN 'unknown_item'
            WHEN event <> 'search' AND NOT known.taken THEN 'rejected_item'
            WHEN row_number() OVER (
                PARTITION BY user_id, item_id, event, time, query ORDER BY source, source_row
            ) > 1 THEN 'duplicate_event'
            END AS reason
        FROM (
            SELECT * EXCLUDE (timestamp), timestamp AS time FROM (SELECT {table.columns} FROM {table.source})
        ) AS typed
        LEFT JOIN (SELECT item_id, bool_or(reason IS NULL) AS taken FROM host_items GROUP BY 1) AS known USING (item_id)
        {"" if until is None else f"WHERE time IS NULL OR time < {until}"}
        """
    )


def load_users(connection: duckdb.DuckDBPyConnection, host: Host) -> None:
    """Make table host_users: user_id, attributes (MAP of text), source, source_row, reason; empty without a table.

    Every further column is an attribute; a column `attributes` that is a MAP is taken as it is. Of an attribute that is
    given twice the first counts.
    """
    table = host.table("users")
    if table is None:
        connection.execute(
            "CREATE TEMP TABLE host_users (user_id VARCHAR, attributes MAP(VARCHAR, VARCHAR), source VARCHAR, "
            "source_row BIGINT, reason VARCHAR)"
        )
        return
    connection.execute(
        f"""
        CREATE TEMP TABLE host_users AS
        SELECT * EXCLUDE (unreadable), CASE
            {_bad_id("user_id")}
            WHEN row_number() OVER (PARTITION BY user_id ORDER BY source, source_row) > 1 THEN 'duplicate_user'
            END AS reason
        FROM (
            SELECT * EXCLUDE (entries), map_from_entries(list_filter(
                entries, lambda entry, place: entry.key IS NOT NULL AND entry.value IS NOT NULL
                AND list_position(list_transform(entries, lambda other: other.key), entry.key) = place
            )) AS attributes
            FROM (SELECT {table.columns}, {_entries(table)} AS entries FROM {table.source})
        )
        """
    )


_LEVEL = r"""
    CASE WHEN regexp_matches(level, '[^\s\p{Z}\p{C}<>|{}\[\]\\`;"“”„«»]')
         THEN trim(regexp_replace(nfc_normalize(level), '[\s\p{Z}]+', ' ', 'g')) ELSE '' END"""
"""A level of a path as it is kept, empty where `clean_text` would leave nothing to show (SQL)."""

_UNREADABLE = "WHEN unreadable IS NOT NULL THEN 'unreadable_' || unreadable"


def _entries(table: HostTable) -> str:
    if table.types.get("attributes", "").startswith("MAP"):
        return "map_entries(attributes)::STRUCT(key VARCHAR, value VARCHAR)[]"
    values = ", ".join(f"{{'key': {sql_text(name)}, 'value': {identifier(name)}::VARCHAR}}" for name in table.others)
    return f"[{values}]::STRUCT(key VARCHAR, value VARCHAR)[]"


def _in_fractions(latest: int) -> str:
    """Tell in SQL whether a time that is too large would be one in milli-, micro- or nanoseconds."""
    return "(" + " OR ".join(f"time // {10**n} BETWEEN {EARLIEST_TIME} AND {latest}" for n in (3, 6, 9)) + ")"


def _bad_id(name: str) -> str:
    return f"""
            WHEN coalesce({name}, '') = '' THEN 'missing_{name}'
            WHEN {_is_no_id(name)} THEN 'invalid_{name}'"""


def _is_no_id(text: str) -> str:
    """Tell in SQL what `id_fault` tells of a text: DuckDB's are valid UTF-8."""
    return f"length({text}) NOT BETWEEN 1 AND {MAX_ID_LENGTH} OR regexp_matches({text}, '{CONTROL_CHARACTERS}')"
