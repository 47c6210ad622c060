"""What the columns of a host's tables may be, and the SQL that makes one type of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_INTEGERS = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
)  # fmt: skip
_NUMBERS = (*_INTEGERS, "FLOAT", "DOUBLE", "DECIMAL")
_TEXT = ("VARCHAR", "ENUM", "JSON")
_NOTHING = '"NULL"'
"""DuckDB's type of a column that holds nothing but NULL."""


@dataclass(frozen=True)
class Kind:
    """What a column may be. A table's part files may differ; what all of them fit in is what is found.

    accepted: DuckDB types, compared without what follows in brackets; type: DuckDB's, of what is made of them;
    expected: the same in words; of_text: the SQL that makes it of a text (NULL where that cannot be); of_timestamp: of
    a timestamp.
    """

    accepted: tuple[str, ...]
    type: str
    expected: str
    of_text: Callable[[str], str] = lambda text: text
    of_timestamp: Callable[[str], str] | None = None

    def accepts(self, found: str) -> bool:
        """Tell whether a DuckDB type is one this column may have."""
        return found == _NOTHING or _name(found) in self.accepted

    def typed(self, expression: str, found: str) -> str:
        """Write the SQL that makes `type` of an expression of type `found`."""
        if found == _NOTHING:
            return f"NULL::{self.type}"
        if is_text(found):
            return self.of_text(as_text(expression, found))
        if self.of_timestamp and _name(found) not in _NUMBERS:
            return self.of_timestamp(expression)
        whole = self.type == "BIGINT" and _name(found) not in _INTEGERS
        # Casts round; what is no number, or too large, is nothing.
        return f"TRY_CAST({f'floor({expression})' if whole else f'({expression})'} AS {self.type})"


def _name(found: str) -> str:
    """A type without what follows in brackets: DECIMAL of DECIMAL(18,3), VARCHAR[] of VARCHAR[]."""
    return found if found.endswith("]") else found.partition("(")[0]


def is_text(found: str) -> bool:
    """Tell whether a DuckDB type is a text's."""
    return found.partition("(")[0] in _TEXT


def as_text(expression: str, found: str) -> str:
    """Write the SQL that makes a text of an expression of type `found`, which is a text's."""
    return f"(({expression}) ->> '$')" if found == "JSON" else f"({expression})::VARCHAR"


def _texts_of(text: str) -> str:
    # A list, as JSON and DuckDB write it, or levels with > or | between them.
    return (
        f"CASE WHEN {text} LIKE '[%' THEN TRY_CAST({text} AS VARCHAR[]) "
        rf"WHEN {text} IS NOT NULL THEN regexp_split_to_array(trim({text}), '\s*[>|]\s*') END"
    )


def _time_of_text(text: str) -> str:
    return f"coalesce(TRY_CAST(floor(TRY_CAST({text} AS DOUBLE)) AS BIGINT), {_time_of_timestamp(text)})"


def _time_of_timestamp(expression: str) -> str:
    # A timestamp without a zone becomes one of the connection's. An infinite one has no epoch and would stop the query.
    time = f"TRY_CAST({expression} AS TIMESTAMPTZ)"
    return f"CASE WHEN isfinite({time}) THEN floor(epoch({time}))::BIGINT END"


_TIMESTAMPS = (
    "DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS",
)  # fmt: skip

ID = Kind((*_TEXT, *_INTEGERS, "UUID"), "VARCHAR", "VARCHAR or an integer")
TEXT = Kind((*_TEXT, *_INTEGERS), "VARCHAR", "VARCHAR")
TEXTS = Kind(("VARCHAR[]", *_TEXT), "VARCHAR[]", "VARCHAR[], or a text such as 'Music > Jazz'", _texts_of)
NUMBER = Kind((*_NUMBERS, *_TEXT), "DOUBLE", "a number", lambda text: f"TRY_CAST({text} AS DOUBLE)")
FLAG = Kind(("BOOLEAN", *_INTEGERS, *_TEXT), "BOOLEAN", "BOOLEAN", lambda text: f"TRY_CAST({text} AS BOOLEAN)")
TIME = Kind(
    (*_NUMBERS, *_TEXT, *_TIMESTAMPS), "BIGINT", "Unix seconds as a number, or a timestamp", _time_of_text,
    _time_of_timestamp,
)  # fmt: skip
