"""What was shown to users: the exposures table of the logs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.logs.catalogue import Catalogue, logs_directory
from serendipity.offline.logs.tables import read_columns

_SECONDS = np.int64(1 << 34)
"""More than any Unix time: a user's moments are apart from the next one's."""


@dataclass(frozen=True)
class Exposures:
    """Exposures of U users; user u's are [offsets[u], offsets[u + 1]), ascending by time.

    offsets: [U + 1] int64. categories: [n] int32, number of the top-level category, 0 = none. times: [n] int64, Unix
    seconds.
    """

    offsets: NDArray[np.int64]
    categories: NDArray[np.int32]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def read(cls, path: Path, num_users: int, catalogue: Catalogue) -> Exposures:
        """Read the logs directory (or the build directory above it). num_users: of its histories. Raises LogsError."""
        columns = read_columns(logs_directory(path) / "exposures.parquet", '"user", item, time')
        numbers = np.r_[np.int32(0), catalogue.item_categories]
        return cls(
            np.searchsorted(columns["user"], np.arange(num_users + 1)).astype(np.int64),
            numbers[columns["item"].astype(np.int64)],
            columns["time"].astype(np.int64),
        )

    def beside(self, users: NDArray[np.int32], times: NDArray[np.int64], seconds: int) -> NDArray[np.bool_]:
        """Tell of n moments of users whether anything was shown to the user within so many seconds of it: [n] bool."""
        owners = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        shown, asked = owners * _SECONDS + self.times, users * _SECONDS + times
        beside: NDArray[np.bool_] = np.searchsorted(shown, asked - seconds) < np.searchsorted(
            shown, asked + seconds, side="right"
        )
        return beside

    def shown(self, user: int, time: int, seconds: int) -> set[int]:
        """List the categories shown to a user within so many seconds before or after a moment."""
        start, end = int(self.offsets[user]), int(self.offsets[user + 1])
        first, last = np.searchsorted(self.times[start:end], [time - seconds, time + seconds + 1])
        return set(self.categories[start + int(first) : start + int(last)].tolist()) - {0}
