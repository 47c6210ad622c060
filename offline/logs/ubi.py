"""The logs of User Behavior Insights (UBI) 1.3 as events of the host schema.

UBI is OpenSearch's schema for what users search and do: an index of queries and one of events, joined by query_id.
Source: github.com/o19s/ubi, schema/1.3.0, event.schema.json and query.request.schema.json.
"""

from __future__ import annotations

from collections.abc import Mapping

from serendipity.offline.logs.kinds import as_text, is_text
from serendipity.offline.parquet import sql_text

ACTIONS = {
    "click": "click",
    "click_through": "click",
    "add_to_cart": "click",
    "purchase": "order",
    "watch": "view",
    "view": "view",
    "impression": "exposure",
}
"""The action names that UBI lists → events of the host schema. Hosts have others besides, which stay as they are."""

UNUSED = ("events/unknown_event", "events/missing_item_id", "events/missing_query")
"""Reasons that count no row against the share that may be rejected: UBI logs also hold log-ins, clicks on no object
and queries without words, and are right to."""


def event_columns(types: Mapping[str, str]) -> dict[str, str]:
    """Write the SQL that makes columns of the host schema of UBI's events. types: column → DuckDB type."""
    action = _text("action_name", types)
    cases = " ".join(f"WHEN {sql_text(name)} THEN {sql_text(event)}" for name, event in ACTIONS.items())
    return {
        **_who_and_when("event_attributes", types),
        "item_id": _inside("event_attributes", "object.object_id", types),
        "event": f"CASE {action} {cases} ELSE {action} END",
        "query": "NULL",
    }


def query_columns(types: Mapping[str, str]) -> dict[str, str]:
    """Write the SQL that makes columns of the host schema of UBI's queries. types: column → DuckDB type."""
    return {
        **_who_and_when("query_attributes", types),
        "item_id": "NULL",
        "event": "'search'",
        "query": _text("user_query", types),
    }


def joined(events: str, queries: str | None) -> str:
    """Write the SQL of one table of UBI's events and queries. events, queries: SQL with the columns of those above.

    A user is who is named, or else who is named beside the same query, or else the client: queries often know only
    the browser, and what happens before a log-in belongs to who logs in. host_row counts through all rows.
    """
    columns = "user_id, client_id, query_id, item_id, event, timestamp, query, value, host_file"
    parts = " UNION ALL ".join(f"SELECT {columns} FROM {part}" for part in (events, queries) if part)
    return f"""(
        WITH logged AS MATERIALIZED (SELECT *, row_number() OVER () - 1 AS host_row FROM ({parts})),
        named AS (
            SELECT query_id, min(user_id) AS user_of_query, min(client_id) AS client_of_query
            FROM logged WHERE query_id IS NOT NULL GROUP BY query_id
        )
        SELECT coalesce(user_id, user_of_query, client_id, client_of_query) AS user_id,
               item_id, event, timestamp, query, value, host_file, host_row
        FROM logged LEFT JOIN named USING (query_id)
    )"""


def _who_and_when(attributes: str, types: Mapping[str, str]) -> dict[str, str]:
    time = _text("timestamp", types)
    return {
        "user_id": f"coalesce({_text('user_id', types)}, {_inside(attributes, 'user_id', types)})",
        "client_id": _text("client_id", types),
        "query_id": _text("query_id", types),
        # OpenSearch's dates are ISO 8601 or numbers of milliseconds.
        "timestamp": f"coalesce((TRY_CAST({time} AS BIGINT) // 1000)::VARCHAR, {time})",
        "value": "NULL",
    }


def _text(column: str, types: Mapping[str, str]) -> str:
    """Write the SQL of a column as a text; NULL where it is empty or there is none."""
    found = types.get(column)
    if found is None:
        return "NULL::VARCHAR"
    text = as_text(column, found) if is_text(found) else f"{column}::VARCHAR"
    return f"nullif({text}, '')"


def _inside(column: str, path: str, types: Mapping[str, str]) -> str:
    """Write the SQL of what lies at a path in a column of objects, or in a column that is called by the whole path."""
    if f"{column}.{path}" in types:
        return f"""nullif("{column}.{path}"::VARCHAR, '')"""
    found = types.get(column)
    if found is None:
        return "NULL::VARCHAR"
    objects = f"CASE WHEN json_valid({column}) THEN {column}::JSON END" if is_text(found) else f"to_json({column})"
    return f"nullif({objects} ->> '$.{path}', '')"
