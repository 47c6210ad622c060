"""Reading a host's files into typed tables, every row with the reason why it is rejected, if any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from serendipity.event_times import EARLIEST_TIME
from serendipity.ids import CONTROL_CHARACTERS, MAX_ID_LENGTH
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.schema import (
    CLOCK_TOLERANCE,
    EVENT_COLUMNS,
    EVENT_TYPES,
    ITEM_COLUMNS,
    MAX_PATH_LEVELS,
    USER_COLUMNS,
    Column,
)
from serendipity.offline.parquet import sql_text


def load_items(connection: duckdb.DuckDBPyConnection, host: Path) -> None:
    """Make table host_items: the columns of ITEM_COLUMNS, source, source_row, reason."""
    source, types = _open(connection, host, "items", ITEM_COLUMNS)
    connection.execute(
        f"""
        CREATE TEMP TABLE host_items AS
        SELECT *, CASE
            {_bad_id("item_id")}
            WHEN path IS NULL OR len(path) NOT BETWEEN 1 AND {MAX_PATH_LEVELS} THEN 'path_levels'
            WHEN len(list_filter(path, lambda level: level IS NULL OR trim(level) = '')) > 0 THEN 'empty_path_level'
            WHEN len(list_filter(path, lambda level: {_is_no_id("level")})) > 0 THEN 'invalid_path_level'
            WHEN price IS NOT NULL AND NOT isfinite(price) THEN 'price_not_finite'
            WHEN row_number() OVER (PARTITION BY item_id ORDER BY source, source_row) > 1 THEN 'duplicate_item'
            END AS reason
        FROM (
            SELECT {_text("item_id")}, coalesce(title::VARCHAR, '') AS title, path::VARCHAR[] AS path,
                   coalesce({_value("brand", types, ITEM_COLUMNS)}::VARCHAR, '') AS brand,
                   list_filter(
                       coalesce({_value("tags", types, ITEM_COLUMNS)}, []), lambda tag: tag IS NOT NULL
                   ) AS tags,
                   {_value("price", types, ITEM_COLUMNS)}::DOUBLE AS price,
                   coalesce({_value("available", types, ITEM_COLUMNS)}, true) AS available, {_origin()}
            FROM {source}
        )
        """
    )


def load_events(connection: duckdb.DuckDBPyConnection, host: Path, now: int, until: int | None) -> None:
    """Make table host_events: the columns of EVENT_COLUMNS (time for timestamp), source, source_row, reason.

    Events at or after `until` are left out: as of that moment they do not exist. Needs host_items.
    """
    source, types = _open(connection, host, "events", EVENT_COLUMNS)
    found = types["timestamp"]
    if found.startswith(("TIMESTAMP", "DATE")):
        # An infinite timestamp has no epoch and would stop the query.
        time = "CASE WHEN isfinite(timestamp) THEN floor(epoch(timestamp)) END"
    else:
        time = "floor(timestamp)" if found.startswith(("FLOAT", "DOUBLE", "DECIMAL")) else "timestamp"
    names = ", ".join(f"'{name}'" for name in EVENT_TYPES)
    connection.execute(
        f"""
        CREATE TEMP TABLE host_events AS
        SELECT typed.* EXCLUDE (raw_time), CASE
            {_bad_id("user_id")}
            WHEN event IS NULL OR event NOT IN ({names}) THEN 'unknown_event'
            WHEN time IS NULL THEN 'missing_timestamp'
            WHEN time < {EARLIEST_TIME} THEN 'timestamp_before_1990'
            WHEN time > {now + CLOCK_TOLERANCE} THEN 'timestamp_in_future'
            WHEN event = 'search' AND trim(coalesce(query, '')) = '' THEN 'missing_query'
            WHEN event <> 'search' AND coalesce(item_id, '') = '' THEN 'missing_item_id'
            WHEN event <> 'search' AND known.item_id IS NULL THEN 'unknown_item'
            WHEN row_number() OVER (
                PARTITION BY user_id, item_id, event, time, query ORDER BY source, source_row
            ) > 1 THEN 'duplicate_event'
            END AS reason
        FROM (
            SELECT *, TRY_CAST(raw_time AS BIGINT) AS time
            FROM (
                SELECT {_text("user_id")}, {_text("item_id")}, event::VARCHAR AS event, {time} AS raw_time,
                       {_value("query", types, EVENT_COLUMNS)}::VARCHAR AS query,
                       {_value("value", types, EVENT_COLUMNS)}::DOUBLE AS value, {_origin()}
                FROM {source}
            )
        ) AS typed
        LEFT JOIN (SELECT item_id FROM host_items WHERE reason IS NULL) AS known USING (item_id)
        {"" if until is None else f"WHERE time IS NULL OR time < {until}"}
        """
    )


def load_users(connection: duckdb.DuckDBPyConnection, host: Path) -> None:
    """Make table host_users: user_id, attributes (MAP of text), source, source_row, reason; empty without a file.

    Every further column is an attribute; a column `attributes` that is a MAP is taken as it is.
    """
    if not _files(host, "users"):
        connection.execute(
            "CREATE TEMP TABLE host_users (user_id VARCHAR, attributes MAP(VARCHAR, VARCHAR), source VARCHAR, "
            "source_row BIGINT, reason VARCHAR)"
        )
        return
    source, types = _open(connection, host, "users", USER_COLUMNS)
    columns = [name for name in types if name != "user_id"]
    if types.get("attributes", "").startswith("MAP"):
        entries = "map_entries(attributes::MAP(VARCHAR, VARCHAR))"
    else:
        values = ", ".join(f"{{'key': {sql_text(name)}, 'value': {_identifier(name)}::VARCHAR}}" for name in columns)
        entries = f"[{values}]::STRUCT(key VARCHAR, value VARCHAR)[]"
    connection.execute(
        f"""
        CREATE TEMP TABLE host_users AS
        SELECT *, CASE
            {_bad_id("user_id")}
            WHEN row_number() OVER (PARTITION BY user_id ORDER BY source, source_row) > 1 THEN 'duplicate_user'
            END AS reason
        FROM (
            SELECT {_text("user_id")},
                   map_from_entries(list_filter({entries}, lambda entry: entry.value IS NOT NULL)) AS attributes,
                   {_origin()}
            FROM {source}
        )
        """
    )


def _files(host: Path, table: str) -> list[Path]:
    single = host / f"{table}.parquet"
    return [single] if single.is_file() else sorted((host / table).glob("**/*.parquet"))


def _open(
    connection: duckdb.DuckDBPyConnection, host: Path, table: str, columns: Sequence[Column]
) -> tuple[str, dict[str, str]]:
    """Find a table's files and check their columns; returns the SQL that reads them and column → type found."""
    files = _files(host, table)
    if not files:
        raise LogsError(f"{host / table}.parquet: missing; expected it, or a folder {table}/ of Parquet files")
    listed = ", ".join(sql_text(str(file)) for file in files)
    source = f"read_parquet([{listed}], filename = 'host_file', file_row_number = true)"
    shown = str(files[0] if len(files) == 1 else files[0].parent)
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    except duckdb.Error as error:
        raise LogsError(f"{shown}: cannot be read as Parquet ({error})") from error
    types = {str(name): str(kind) for name, kind, *_ in described if name not in ("host_file", "file_row_number")}
    for column in columns:
        found = types.get(column.name)
        if found is None and column.missing is None:
            raise LogsError(
                f"{shown}: column {column.name}: missing (found {', '.join(types)}); expected {column.expected}"
            )
        if found is not None and not column.accepts(found):
            raise LogsError(f"{shown}: column {column.name}: found {found}, expected {column.expected}")
    return source, types


def _value(name: str, types: dict[str, str], columns: Sequence[Column]) -> str:
    column = next(column for column in columns if column.name == name)
    return name if name in types or column.missing is None else column.missing


def _text(name: str) -> str:
    return f"{name}::VARCHAR AS {name}"


def _origin() -> str:
    return "parse_filename(host_file) AS source, file_row_number AS source_row"


def _bad_id(name: str) -> str:
    return f"""
            WHEN coalesce({name}, '') = '' THEN 'missing_{name}'
            WHEN {_is_no_id(name)} THEN 'invalid_{name}'"""


def _is_no_id(text: str) -> str:
    """Tell in SQL what `id_fault` tells of a text: DuckDB's are valid UTF-8."""
    return f"length({text}) NOT BETWEEN 1 AND {MAX_ID_LENGTH} OR regexp_matches({text}, '{CONTROL_CHARACTERS}')"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
