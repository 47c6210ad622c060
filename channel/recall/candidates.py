"""Candidates as columns: what sources return and the stages after them hand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_INTEREST = -1
"""Interest index of candidates that no latent interest led to (U2I)."""


@dataclass(frozen=True)
class Candidates:
    """Items found, element i of every column being one find; an item may be found several times.

    rows: [n] int64, item rows of the snapshot; sources: [n] int8, numbers of Source;
    raw: [n] float32, inner products, comparable within a source only;
    interests: [n] int16, index into the user's interests, NO_INTEREST for U2I.
    """

    rows: NDArray[np.int64]
    sources: NDArray[np.int8]
    raw: NDArray[np.float32]
    interests: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_items(self) -> int:
        """How many distinct items there are."""
        return len(np.unique(self.rows))

    @classmethod
    def empty(cls) -> Candidates:
        """Nothing found."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, np.float32), np.empty(0, np.int16))

    @classmethod
    def concatenate(cls, parts: Sequence[Candidates]) -> Candidates:
        """Lay the finds of several sources one after another."""
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.sources for part in parts]),
            np.concatenate([part.raw for part in parts]),
            np.concatenate([part.interests for part in parts]),
        )

    def take(self, where: NDArray[np.bool_] | NDArray[np.int64]) -> Candidates:
        """Keep the elements a mask marks, or those at the given positions in their order."""
        return Candidates(self.rows[where], self.sources[where], self.raw[where], self.interests[where])
