"""What became of entries that were taken."""

from __future__ import annotations

from dataclasses import dataclass

from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class Completed:
    """Interests were generated; the paths are in the order of the interests' node ids."""

    entry: records_pb2.NearlineEntry
    interests: records_pb2.InterestsRecord
    paths: records_pb2.InterestPathsRecord


@dataclass(frozen=True)
class Failed:
    """The attempt failed for the entry's own sake. error: what was found and expected, for an operator."""

    entry: records_pb2.NearlineEntry
    error: str


@dataclass(frozen=True)
class Unneeded:
    """Nothing is to be generated. quiet_until: moment (Unix seconds) before which the user is not queued again."""

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
