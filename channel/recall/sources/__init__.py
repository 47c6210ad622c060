"""Sources of candidates: each proposes item rows to the pool, and scores those of the pool that are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import Pool, UserVectors
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2

NO_INTEREST = -1
"""What leads to candidates that no latent interest led to."""


@dataclass(frozen=True)
class Finds:
    """How a source scores the m rows of a pool.

    found: [m] bool, what it ranks: also of what other sources proposed; raw: [m] float32, of every row that it can
    score, comparable within the source only; not finite or 0 elsewhere. interests: [m] int16, index of the interest
    that leads to each, or NO_INTEREST.
    """

    found: NDArray[np.bool_]
    raw: NDArray[np.float32]
    interests: NDArray[np.int16]

    @classmethod
    def without_interests(cls, found: NDArray[np.bool_], raw: NDArray[np.float32]) -> Finds:
        """Finds that no latent interest led to."""
        return cls(found, raw, np.full(len(raw), NO_INTEREST, np.int16))


class CandidateSource(Protocol):
    """One way of finding candidates.

    source: number of Source; needs_tower: it searches by vectors of the user tower, or of what stands in for it.
    """

    source: channel_pb2.Source
    needs_tower: bool

    def propose(self, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int) -> NDArray[np.int64]:
        """Name the rows that its `wanted` best are among. Reads no store."""
        ...

    def score(self, pool: Pool, user: Hydrated, fallback: bool) -> Finds:
        """Score the pool, whoever proposed what. fallback: stored vectors stood in for the tower."""
        ...

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether there is anything to search by."""
        ...

    def state_of(self, user: Hydrated) -> channel_pb2.SourceState:
        """Tell how good what it searches by is: OK, STALE or UNAVAILABLE (EMPTY is for its caller to tell)."""
        ...
