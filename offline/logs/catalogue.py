"""The catalogue: every item of the host, by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.tables import read_columns, read_rows


@dataclass(frozen=True)
class Catalogue:
    """Items by row, sorted by (top-level category name, path, item id); those without a top-level category last.

    item_ids, titles, paths, brands ("" unknown), tags: lists of n. available: [n] bool. prices: [n] float32, NaN
    unknown. categories: top-level names, sorted. item_categories: [n] int32, index + 1 in `categories`, 0 = none.
    category_offsets: [len(categories) + 1] int64; category i has rows category_offsets[i] … category_offsets[i + 1].
    novelty_level: level of the path, from 0, that is top-level.
    """

    item_ids: list[str]
    titles: list[str]
    paths: list[tuple[str, ...]]
    brands: list[str]
    tags: list[tuple[str, ...]]
    available: NDArray[np.bool_]
    prices: NDArray[np.float32]
    categories: list[str]
    item_categories: NDArray[np.int32]
    category_offsets: NDArray[np.int64]
    novelty_level: int

    def __len__(self) -> int:
        return len(self.item_ids)

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Read catalogue.parquet: `path` is it, the logs directory, or the build directory above.

        Raises LogsError when it is missing, cannot be read, or is not sorted by category.
        """
        logs = logs_directory(path)
        file = logs / "catalogue.parquet"
        texts = read_rows(file, "item_id, title, path, brand, tags")
        columns = read_columns(file, "available, category_number")
        levels = read_rows(file, "DISTINCT category_number, category")
        categories = [name for number, name in sorted(levels, key=lambda level: int(level[0])) if number]
        item_categories = columns["category_number"].astype(np.int32)
        # Rows without a category come last: as a number past all others.
        order = np.where(item_categories == 0, len(categories) + 1, item_categories)
        if np.any(np.diff(order) < 0):
            raise LogsError(f"{file}: rows are not sorted by category; expected the logs builder's order")
        return cls(
            item_ids=[row[0] for row in texts],
            titles=[row[1] for row in texts],
            paths=[tuple(row[2]) for row in texts],
            brands=[row[3] for row in texts],
            tags=[tuple(row[4]) for row in texts],
            available=columns["available"].astype(np.bool_),
            prices=_prices(file),
            categories=categories,
            item_categories=item_categories,
            category_offsets=np.searchsorted(order, np.arange(1, len(categories) + 2)).astype(np.int64),
            novelty_level=LogsSummary.read(logs).novelty_level,
        )


def logs_directory(path: Path) -> Path:
    """Find the logs directory from it, from a table in it, or from the build directory above it."""
    if path.is_file():
        return path.parent
    if (path / "logs" / "catalogue.parquet").is_file():
        return path / "logs"
    if not (path / "catalogue.parquet").is_file():
        raise LogsError(f"{path / 'catalogue.parquet'}: missing; expected the output of the logs builder")
    return path


def _prices(file: Path) -> NDArray[np.float32]:
    # NULL arrives masked and its data is arbitrary, so it is made NaN in SQL.
    return read_columns(file, "coalesce(price, 'nan'::DOUBLE) AS price")["price"].astype(np.float32)
