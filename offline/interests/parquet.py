"""Writing rows of Python values as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb


def write_rows(
    path: Path, types: Mapping[str, str], rows: Iterable[Mapping[str, Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write rows beside and move them into place. types: column → DuckDB type; metadata: kept with the file.

    They pass through JSON lines: DuckDB inserts Python rows one by one, 100 times slower.
    """
    lines = path.with_name(f".{path.name}.jsonl")
    beside = path.with_name(f".{path.name}.partial")
    columns = ", ".join(f"{name}: {kind!r}" for name, kind in types.items())
    pairs = ", ".join(f"{name}: {_literal(value)}" for name, value in (metadata or {}).items())
    kept = f", KV_METADATA {{{pairs}}}" if pairs else ""
    try:
        with lines.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT * FROM read_json({_literal(str(lines))}, format = 'newline_delimited', "
                f"columns = {{{columns}}})) TO {_literal(str(beside))} (FORMAT parquet, COMPRESSION zstd{kept})"
            )
        beside.replace(path)
    finally:
        lines.unlink(missing_ok=True)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
