"""What became of entries that were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from serendipity.v1 import records_pb2

NearlineRecord: TypeAlias = (
    records_pb2.InterestsRecord | records_pb2.InterestPathsRecord | records_pb2.NovelCategoriesRecord
)
"""What is generated near-line."""


@dataclass(frozen=True)
class Completed:
    """Records were generated: a user's interests and their paths, in the order of their nodes, or a list."""

    entry: records_pb2.NearlineEntry
    records: tuple[NearlineRecord, ...]


@dataclass(frozen=True)
class Failed:
    """The attempt failed for the entry's own sake. error: what was found and expected, for an operator."""

    entry: records_pb2.NearlineEntry
    error: str


@dataclass(frozen=True)
class Unneeded:
    """Nothing is to be generated: it was already, or too little is known."""

    entry: records_pb2.NearlineEntry


Outcome = Completed | Failed | Unneeded
