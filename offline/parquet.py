"""Parquet files through DuckDB: written beside and moved into place, read with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb


def write_query(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path, metadata: Mapping[str, str] | None = None
) -> int:
    """Write a query's rows beside and move the file into place; returns their number. metadata: kept with the file."""
    beside = path.with_name(f".{path.name}.partial")
    pairs = ", ".join(f"{name}: {sql_text(value)}" for name, value in (metadata or {}).items())
    kept = f", KV_METADATA {{{pairs}}}" if pairs else ""
    try:
        written = connection.execute(
            f"COPY ({query}) TO {sql_text(beside)} (FORMAT parquet, COMPRESSION zstd{kept})"
        ).fetchone()
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return int(written[0]) if written else 0


def write_rows(
    path: Path, types: Mapping[str, str], rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write rows as `write_query` does. types: column → DuckDB type; what a cell holds may be a dataclass.

    They pass through JSON lines: DuckDB inserts Python rows one by one, 100 times slower.
    """
    lines = path.with_name(f".{path.name}.jsonl")
    columns = ", ".join(f"{name}: {kind!r}" for name, kind in types.items())
    try:
        with lines.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=vars) + "\n")
        source = f"read_json({sql_text(lines)}, format = 'newline_delimited', columns = {{{columns}}})"
        with duckdb.connect() as connection:
            write_query(connection, f"SELECT * FROM {source}", path, metadata)
    finally:
        lines.unlink(missing_ok=True)


@contextmanager
def reading(
    path: Path, error: Callable[[str], Exception], expected: str
) -> Iterator[Callable[..., duckdb.DuckDBPyConnection]]:
    """Give what runs a query with the file's name as its first parameter, and the further ones.

    Whatever DuckDB finds wrong is raised as `error`, which says that the file is not what was expected.
    """
    with duckdb.connect() as connection:
        try:
            yield lambda query, *parameters: connection.execute(query, [str(path), *parameters])
        except duckdb.Error as found:
            raise error(f"{path}: cannot be read ({found}); expected {expected}") from found


def sql_text(value: object) -> str:
    """Quote a value as an SQL string literal (COPY … TO takes no parameters)."""
    return "'" + str(value).replace("'", "''") + "'"
