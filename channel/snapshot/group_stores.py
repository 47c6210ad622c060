"""The stores of a snapshot that hold groups of users and their novel-category lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt
from serendipity.channel.snapshot.stores import Store
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class StoredList:
    """A novel-category list, best first.

    numbers: [k] int32 category numbers, each once; alignments: [k] float32, 0 to 1; record: as it is stored, which says
    whose it is and when it was generated.
    """

    numbers: NDArray[np.int32]
    alignments: NDArray[np.float32]
    record: records_pb2.NovelCategoriesRecord

    @classmethod
    def of(cls, record: records_pb2.NovelCategoriesRecord, num_categories: int) -> StoredList:
        """Lay a record out. Raises ValueError naming the field that does not fit the catalogue's categories."""
        numbers, alignments = list(record.categories), list(record.scores)
        if len(numbers) != len(alignments):
            raise ValueError(f"scores: found {len(alignments)} scores, expected {len(numbers)}, one per category")
        if numbers and not 0 < min(numbers) <= max(numbers) <= num_categories:
            raise ValueError(
                f"categories: found numbers {min(numbers)} to {max(numbers)}, expected 1 to {num_categories}"
            )
        if len(set(numbers)) < len(numbers):
            raise ValueError("categories: found one twice, expected each once")
        # Not a number compares false, whatever stands beside it.
        if not all(0 <= alignment <= 1 for alignment in alignments):
            raise ValueError(f"scores: found {alignments}, expected alignments, 0 to 1")
        return cls(np.array(numbers, np.int32), np.array(alignments, np.float32), record)


class NovelCategoryStore(Store):
    """novel_categories.lmdb."""

    def __init__(self, path: Path, num_categories: int) -> None:
        """num_categories: of the snapshot; a record that goes beyond them is corrupt."""
        super().__init__(path)
        self._num_categories = num_categories

    def read(self, key: bytes) -> StoredList | None:
        """Read the list of a novel-category key. Raises RecordCorrupt, StoreUnavailable."""
        record = self._read(key, records_pb2.NovelCategoriesRecord())
        if record is None:
            return None
        try:
            return StoredList.of(record, self._num_categories)
        except ValueError as error:
            raise RecordCorrupt(f"{self._name}: key {key!r}: {error}") from error


class GroupStore(Store):
    """groups.lmdb; groups are few and asked for all the time, so those once read are kept."""

    def __init__(self, path: Path) -> None:
        """Open the store at `path`."""
        super().__init__(path)
        self._known: dict[int, records_pb2.GroupRecord] = {}

    def read(self, group_id: int) -> records_pb2.GroupRecord | None:
        """Read a group by id. Raises RecordCorrupt, StoreUnavailable."""
        if known := self._known.get(group_id):
            return known
        key = layout.group_key(group_id)
        record = self._read(key, records_pb2.GroupRecord())
        if record is None:
            return None
        if record.group_id != group_id:
            raise self._corrupt(key, "group_id", record.group_id, group_id)
        self._known[group_id] = record
        return record
