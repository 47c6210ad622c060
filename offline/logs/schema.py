"""The host schema: what a host's Parquet files must hold, and how the logs are read.

docs/host-schema.md says the same in words for the engineer who exports the logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator

from serendipity.offline.configuration import Configuration
from serendipity.v1 import channel_pb2

EventName = Literal["click", "search", "exposure", "order", "view", "favourite", "not_interested"]

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

MAX_PATH_LEVELS = 4
CLOCK_TOLERANCE = 86_400
"""Seconds an event may lie ahead of the builder's clock (hosts in other time zones, exports without a zone)."""

_TEXT = ("VARCHAR", "ENUM")
_INTEGER = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
)  # fmt: skip
_FLOATING = ("FLOAT", "DOUBLE", "DECIMAL")
_TIME = ("TIMESTAMP", "DATE")
_TEXTS = ("VARCHAR[]",)


@dataclass(frozen=True)
class Column:
    """One column of a host file.

    accepted: DuckDB type names; a column's type matches by prefix, so DECIMAL stands for DECIMAL(18,3) and
    TIMESTAMP for TIMESTAMP WITH TIME ZONE. expected: the same in words, for errors. missing: the SQL that stands in
    for an optional column that is not there.
    """

    name: str
    accepted: tuple[str, ...]
    expected: str
    missing: str | None = None

    def accepts(self, found: str) -> bool:
        """Tell whether a DuckDB type name is one this column may have."""
        is_list = found.endswith("]")
        return any(found.startswith(name) and is_list == name.endswith("]") for name in self.accepted)


EVENT_COLUMNS = (
    Column("user_id", (*_TEXT, *_INTEGER), "VARCHAR or an integer"),
    Column("item_id", (*_TEXT, *_INTEGER), "VARCHAR or an integer"),
    Column("event", _TEXT, "VARCHAR"),
    Column("timestamp", (*_INTEGER, *_FLOATING, *_TIME), "Unix seconds as a number, or TIMESTAMP (UTC)"),
    Column("query", _TEXT, "VARCHAR", "NULL::VARCHAR"),
    Column("value", (*_INTEGER, *_FLOATING), "a number", "NULL::DOUBLE"),
)
ITEM_COLUMNS = (
    Column("item_id", (*_TEXT, *_INTEGER), "VARCHAR or an integer"),
    Column("title", _TEXT, "VARCHAR"),
    Column("path", _TEXTS, "VARCHAR[] of 1 to 4 levels"),
    Column("brand", (*_TEXT, *_INTEGER), "VARCHAR", "NULL::VARCHAR"),
    Column("tags", _TEXTS, "VARCHAR[]", "NULL::VARCHAR[]"),
    Column("price", (*_INTEGER, *_FLOATING), "a number", "NULL::DOUBLE"),
    Column("available", ("BOOLEAN",), "BOOLEAN", "true"),
)
USER_COLUMNS = (Column("user_id", (*_TEXT, *_INTEGER), "VARCHAR or an integer"),)


class LogsConfig(Configuration):
    """How a host's logs are read."""

    novelty_level: int = Field(default=0, ge=0, lt=MAX_PATH_LEVELS)
    """Level of the category path, from 0, that is "top-level" for novelty."""

    click_types: tuple[EventName, ...] = ("click", "order")
    """Events that count as clicks: history and novelty are made of them."""

    signal_types: tuple[EventName, ...] = ("view", "favourite")
    """Events on items kept beside the clicks, for prompts of language models; those that count as clicks are not."""

    max_rejected: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of a file's rows that may be rejected before the run stops."""

    until: int | None = None
    """Unix seconds (or an ISO 8601 time; without a zone: UTC): only events before it are read. None: all."""

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
    def signals(self) -> tuple[EventName, ...]:
        """Events that are signals and no clicks."""
        return tuple(name for name in self.signal_types if name not in self.click_types)

    @field_validator("until", mode="before")
    @classmethod
    def _unix_seconds(cls, value: object) -> object:
        if isinstance(value, str) and not value.lstrip("-").isdigit():
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        return value
