"""What became of entries that were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from serendipity.channel.nearline.tables import NearlineTransaction
from serendipity.v1 import records_pb2


class Records(Protocol):
    """What was generated for one entry."""

    def put(self, transaction: NearlineTransaction, key: bytes) -> None:
        """Write it under the entry's key."""


@dataclass(frozen=True)
class InterestRecords:
    """A user's interests; the paths are in the order of their node ids."""

    interests: records_pb2.InterestsRecord
    paths: records_pb2.InterestPathsRecord

    def put(self, transaction: NearlineTransaction, key: bytes) -> None:
        """Write both under the user's key."""
        transaction.put_interests(key, self.interests, self.paths)


@dataclass(frozen=True)
class UserGroup:
    """A user's group."""

    record: records_pb2.UserGroupRecord

    def put(self, transaction: NearlineTransaction, key: bytes) -> None:
        """Write it under the user's key."""
        transaction.put_group(key, self.record)


@dataclass(frozen=True)
class NovelCategories:
    """A novel-category list; without categories it says that nothing reached the threshold."""

    record: records_pb2.NovelCategoriesRecord

    def put(self, transaction: NearlineTransaction, key: bytes) -> None:
        """Write it under its key."""
        transaction.put_list(key, self.record)


@dataclass(frozen=True)
class Completed:
    """Records were generated."""

    entry: records_pb2.NearlineEntry
    records: Records


@dataclass(frozen=True)
class Failed:
    """The attempt failed for the entry's own sake. error: what was found and expected, for an operator."""

    entry: records_pb2.NearlineEntry
    error: str


@dataclass(frozen=True)
class Unneeded:
    """Nothing is to be generated. quiet_until: moment (Unix seconds) before which it is not queued again."""

    entry: records_pb2.NearlineEntry
    quiet_until: int = 0


Outcome = Completed | Failed | Unneeded


@dataclass(frozen=True)
class Settled:
    """How many entries ended how.

    completed: records stored; failed: to be tried again later; parked: tried too often; unneeded: removed without
    records; gone: no longer queued when they ended (the user was forgotten), nothing was stored.
    """

    completed: int = 0
    failed: int = 0
    parked: int = 0
    unneeded: int = 0
    gone: int = 0


@dataclass(frozen=True)
class BatchDone:
    """What became of a batch.

    settled: entries by outcome; forgotten: entries of users on the erasure list, removed; asked: entries that a model
    was asked about, and answered; seconds: of all of it.
    """

    settled: Settled
    forgotten: int = 0
    asked: int = 0
    seconds: float = 0.0
