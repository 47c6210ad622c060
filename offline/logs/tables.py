"""Reading the tables of a logs directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from serendipity.offline.logs.errors import LogsError


def read_columns(path: Path, columns: str) -> dict[str, NDArray[Any]]:
    """Read columns of a Parquet file (SQL select list) as NumPy arrays. Raises LogsError when it cannot be read."""
    with duckdb.connect() as connection:
        try:
            found = connection.execute(f"SELECT {columns} FROM read_parquet(?)", [str(path)]).fetchnumpy()
        except duckdb.Error as error:
            raise LogsError(f"{path}: cannot be read ({error}); expected a table of the logs builder") from error
    # Columns that may hold NULL arrive masked; ours never do.
    return {name: values.data if isinstance(values, np.ma.MaskedArray) else values for name, values in found.items()}


def read_rows(path: Path, columns: str) -> list[tuple[Any, ...]]:
    """Read columns of a Parquet file (SQL select list) as rows. Raises LogsError when it cannot be read."""
    with duckdb.connect() as connection:
        try:
            rows: list[tuple[Any, ...]] = connection.execute(
                f"SELECT {columns} FROM read_parquet(?)", [str(path)]
            ).fetchall()
        except duckdb.Error as error:
            raise LogsError(f"{path}: cannot be read ({error}); expected a table of the logs builder") from error
    return rows
