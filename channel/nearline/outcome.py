"""What became of entries that were taken."""

from __future__ import annotations

from dataclasses import dataclass

from serendipity.channel.nearline.tables import Record
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class Completed:
    """Records were generated: a user's interests and their paths, in the order of their nodes, a group, or a list."""

    entry: records_pb2.NearlineEntry
    records: tuple[Record, ...]


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
