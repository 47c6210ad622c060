"""Item rows as a few contiguous ranges: vectors are sorted by top-level category, so a set of categories is that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowRanges:
    """Item rows [starts[i], ends[i]), ascending and apart. starts, ends: [m] int64."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return int((self.ends - self.starts).sum())

    @classmethod
    def of_categories(cls, allowed: NDArray[np.bool_], category_offsets: NDArray[np.int64]) -> RowRanges:
        """Rows of the marked categories. allowed: [c + 1] bool by category number; category_offsets: [c + 1]."""
        edges = np.diff(np.concatenate(([False], allowed[1:], [False])).astype(np.int8))
        starts, ends = category_offsets[np.flatnonzero(edges == 1)], category_offsets[np.flatnonzero(edges == -1)]
        filled = ends > starts
        return cls(starts[filled], ends[filled])

    @classmethod
    def union(cls, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> RowRanges:
        """Rows of ranges that may overlap each other, in any order."""
        united: list[tuple[int, int]] = []
        for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
            if start < end and united and start <= united[-1][1]:
                united[-1] = (united[-1][0], max(end, united[-1][1]))
            elif start < end:
                united.append((start, end))
        return cls(np.array([a for a, _ in united], np.int64), np.array([b for _, b in united], np.int64))

    def rows_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows at positions of the ranges laid end to end."""
        ends = np.cumsum(self.ends - self.starts)
        shifts = self.ends - ends
        rows: NDArray[np.int64] = positions + shifts[np.searchsorted(ends, positions, side="right")]
        return rows

    def rows(self) -> NDArray[np.int64]:
        """All rows, ascending."""
        return self.rows_at(np.arange(len(self)))


@dataclass(frozen=True)
class OwnedRanges:
    """Rows of k owners, who may share rows: [starts[i], ends[i]) belongs to owners[i], ascending; all [m] int64."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    owners: NDArray[np.int64]
    num_owners: int

    @classmethod
    def of(cls, ranges: Sequence[RowRanges]) -> OwnedRanges:
        """Lay out the ranges of each owner."""
        if not ranges:
            nothing = np.empty(0, np.int64)
            return cls(nothing, nothing, nothing, 0)
        owners = np.repeat(np.arange(len(ranges)), [len(some.starts) for some in ranges])
        return cls(
            np.concatenate([some.starts for some in ranges]),
            np.concatenate([some.ends for some in ranges]),
            owners,
            len(ranges),
        )

    def within(self, allowed: RowRanges) -> OwnedRanges:
        """The owners' rows that are in `allowed` as well."""
        first = np.searchsorted(allowed.ends, self.starts, side="right")
        pieces = np.maximum(np.searchsorted(allowed.starts, self.ends) - first, 0)
        of = np.repeat(np.arange(len(self.starts)), pieces)
        overlapped = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces - first, pieces)
        starts = np.maximum(self.starts[of], allowed.starts[overlapped])
        return OwnedRanges(
            starts, np.minimum(self.ends[of], allowed.ends[overlapped]), self.owners[of], self.num_owners
        )

    def take(self, owners: NDArray[np.int64]) -> OwnedRanges:
        """Keep some owners, given in ascending order or not, numbered anew in the order given."""
        numbers = np.full(self.num_owners, -1, np.int64)
        numbers[owners] = np.arange(len(owners))
        found = numbers[self.owners]
        order = np.argsort(found, kind="stable")
        order = order[found[order] >= 0]
        return OwnedRanges(self.starts[order], self.ends[order], found[order], len(owners))

    def contain(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which owner has which row. rows: [n], ascending. Returns [n, k] bool."""
        contained = np.zeros((len(rows), self.num_owners), np.bool_)
        first, last = np.searchsorted(rows, self.starts).tolist(), np.searchsorted(rows, self.ends).tolist()
        for start, end, owner in zip(first, last, self.owners.tolist(), strict=True):
            contained[start:end, owner] = True
        return contained
