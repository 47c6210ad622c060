"""Host folders made of a few rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

EVENT_TYPES = {
    "user_id": "VARCHAR", "item_id": "VARCHAR", "event": "VARCHAR", "timestamp": "BIGINT", "query": "VARCHAR",
    "value": "DOUBLE",
}  # fmt: skip
ITEM_TYPES = {
    "item_id": "VARCHAR", "title": "VARCHAR", "path": "VARCHAR[]", "brand": "VARCHAR", "tags": "VARCHAR[]",
    "price": "DOUBLE", "available": "BOOLEAN",
}  # fmt: skip
USER_TYPES = {"user_id": "VARCHAR", "age": "VARCHAR", "city": "VARCHAR"}

Row = tuple[Any, ...]


def write_table(path: Path, types: Mapping[str, str], rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in types.items())
        connection.execute(f"CREATE TABLE t ({columns})")
        if rows:
            connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(types))})", rows)
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")


@pytest.fixture
def write_host(tmp_path: Path) -> Callable[..., Path]:
    """Write a host folder; items are (id, path), events (user, item, event, time) and may have a query and a value."""

    def write(
        items: Sequence[tuple[str | None, Sequence[str | None] | None]] = (("i1", ("a", "x")), ("i2", ("b", "y"))),
        events: Sequence[Row] = (),
        users: Sequence[Row] | None = None,
        event_types: Mapping[str, str] = EVENT_TYPES,
    ) -> Path:
        host = tmp_path / "host"
        rows = [(item, f"title of {item}", path, "brand", ["tag"], None, True) for item, path in items]
        write_table(host / "items.parquet", ITEM_TYPES, rows)
        filled = [(*event, *([None] * (len(event_types) - len(event)))) for event in events]
        write_table(host / "events.parquet", event_types, filled)
        if users is not None:
            write_table(host / "users.parquet", USER_TYPES, users)
        return host

    return write
