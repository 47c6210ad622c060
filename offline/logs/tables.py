"""Reading the tables of a logs directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.logs.errors import LogsError
from serendipity.offline.parquet import reading

_EXPECTED = "a table of the logs builder"


def read_columns(path: Path, columns: str) -> dict[str, NDArray[Any]]:
    """Read columns of a Parquet file (SQL select list) as NumPy arrays. Raises LogsError when it cannot be read."""
    with reading(path, LogsError, _EXPECTED) as query:
        found = query(f"SELECT {columns} FROM read_parquet(?)").fetchnumpy()
    # Columns that may hold NULL arrive masked; ours never do.
    return {name: values.data if isinstance(values, np.ma.MaskedArray) else values for name, values in found.items()}


def read_rows(path: Path, columns: str) -> list[tuple[Any, ...]]:
    """Read columns of a Parquet file (SQL select list) as rows. Raises LogsError when it cannot be read."""
    with reading(path, LogsError, _EXPECTED) as query:
        rows: list[tuple[Any, ...]] = query(f"SELECT {columns} FROM read_parquet(?)").fetchall()
    return rows
