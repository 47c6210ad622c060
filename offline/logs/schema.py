"""The host schema: what a host's tables must hold, and how the logs are read.

docs/host-schema.md says the same in words for the engineer who exports the logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator

from serendipity.offline.configuration import Configuration, UnixSeconds
from serendipity.offline.logs.kinds import FLAG, ID, NUMBER, TEXT, TEXTS, TIME, Kind
from serendipity.v1 import channel_pb2

EventName = Literal["click", "search", "exposure", "order", "view", "favourite", "not_interested"]
TableName = Literal["events", "items", "users", "queries"]

EVENT_TYPES: dict[str, channel_pb2.EventType] = {
    "click": channel_pb2.EVENT_TYPE_CLICK,
    "search": channel_pb2.EVENT_TYPE_SEARCH,
    "exposure": channel_pb2.EVENT_TYPE_EXPOSURE,
    "order": channel_pb2.EVENT_TYPE_ORDER,
    "view": channel_pb2.EVENT_TYPE_VIEW,
    "favourite": channel_pb2.EVENT_TYPE_FAVOURITE,
    "not_interested": channel_pb2.EVENT_TYPE_NOT_INTERESTED,
}
"""Event names of the host schema and the wire's numbers for them."""

MAX_PATH_LEVELS = 8
CLOCK_TOLERANCE = 86_400
"""Seconds an event may lie ahead of the builder's clock (hosts in other time zones, exports without a zone)."""


@dataclass(frozen=True)
class Column:
    """One column of a host table. missing: the SQL that stands in for an optional column that is not there."""

    name: str
    kind: Kind
    missing: str | None = None


TABLES: dict[TableName, tuple[Column, ...]] = {
    "events": (
        Column("user_id", ID),
        Column("item_id", ID),
        Column("event", TEXT),
        Column("timestamp", TIME),
        Column("query", TEXT, "NULL::VARCHAR"),
        Column("value", NUMBER, "NULL::DOUBLE"),
    ),
    "items": (
        Column("item_id", ID),
        Column("title", TEXT),
        Column("path", TEXTS),
        Column("brand", TEXT, "NULL::VARCHAR"),
        Column("tags", TEXTS, "NULL::VARCHAR[]"),
        Column("price", NUMBER, "NULL::DOUBLE"),
        Column("available", FLAG, "true"),
    ),
    "users": (Column("user_id", ID),),
}
"""Columns of the host schema; `queries` are read in another format alone, see LogsConfig.format."""

_OF_QUERIES = ("user_id", "timestamp", "query")


class LogsConfig(Configuration):
    """How a host's logs are read."""

    novelty_level: int = Field(default=0, ge=0, lt=MAX_PATH_LEVELS)
    """Level of the category path, from 0, that is "top-level" for novelty."""

    click_types: tuple[EventName, ...] = ("click", "order")
    """Events that count as clicks: history and novelty are made of them."""

    signal_types: tuple[EventName, ...] = ("favourite", "view")
    """Events on items kept beside the clicks, for prompts of language models; those that count as clicks are not."""

    max_rejected: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of a table's rows that may be rejected before the run stops. Repeated rows are left out and not counted."""

    until: UnixSeconds | None = None
    """Unix seconds (or an ISO 8601 time; without a zone: UTC): only events before it are read. None: all."""

    format: Literal["tables", "ubi"] = "tables"
    """What events are read from: "tables", one of the host schema; "ubi", the events and queries of User Behavior
    Insights 1.3, by default in files ubi_events and ubi_queries."""

    files: dict[TableName, str] = Field(default_factory=dict)
    """Where a table lies if not under its own name: a path from the host's folder, with * and **, or a URL."""

    columns: dict[TableName, dict[str, str]] = Field(default_factory=dict)
    """A column of the host schema → the SQL expression (DuckDB) over the table's columns that gives it, such as
    "visitorid", "ts / 1000" or "[department, aisle]"."""

    time_zone: str = "UTC"
    """Zone of times that carry none, by its IANA name."""

    @field_validator("columns")
    @classmethod
    def _names_columns(cls, value: dict[TableName, dict[str, str]]) -> dict[TableName, dict[str, str]]:
        for table, given in value.items():
            known = _OF_QUERIES if table == "queries" else [column.name for column in TABLES[table]]
            for name in given:
                if table != "users" and name not in known:
                    raise ValueError(f"columns.{table}: found {name}, expected some of {', '.join(known)}")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"time_zone: found {value}, expected the IANA name of a zone, such as Europe/Berlin")
        return value

    @field_validator("click_types")
    @classmethod
    def _names_clicks(cls, value: tuple[EventName, ...]) -> tuple[EventName, ...]:
        if not value:
            raise ValueError("click_types: found none, expected at least one event name")
        for name, why in (("search", "concerns no item"), ("not_interested", "says the opposite of a click")):
            if name in value:
                raise ValueError(f"click_types: found {name}, which {why}")
        return tuple(sorted(set(value)))

    @field_validator("signal_types")
    @classmethod
    def _names_signals(cls, value: tuple[EventName, ...]) -> tuple[EventName, ...]:
        for name, why in (
            ("search", "concerns no item"),
            ("exposure", "is the channel's act, not the user's"),
            ("not_interested", "says what the user does not want"),
        ):
            if name in value:
                raise ValueError(f"signal_types: found {name}, which {why}")
        return tuple(sorted(set(value)))

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The tables that are read."""
        return ("events", "items", "users", "queries") if self.format == "ubi" else ("events", "items", "users")

    @property
    def signals(self) -> tuple[EventName, ...]:
        """Events that are signals and no clicks."""
        return tuple(name for name in self.signal_types if name not in self.click_types)
