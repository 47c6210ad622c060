"""Sources of candidates: what one is, and how each is run and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.candidates import Candidates
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import SourceState
from serendipity.channel.snapshot.vectors import ItemVectors


@dataclass(frozen=True)
class UserVectors:
    """What the user tower gave for one user, or what stood in for it.

    user: [d] float32, the user alone (U2I); interests: [k, d] float32, the user with each interest (I2I);
    fallback: True where the stored user vector stands in for all of them.
    """

    user: NDArray[np.float32]
    interests: NDArray[np.float32]
    fallback: bool


class CandidateSource(Protocol):
    """One way of finding candidates."""

    source: Source

    def find(self, vectors: ItemVectors, user: Hydrated, user_vectors: UserVectors, requested: int) -> Candidates:
        """Find up to `requested` candidates (more where several interests lead to them), best first per query.

        Asked only where `has_queries`. Runs in a thread beside the other sources; reads no store.
        """
        ...

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether there is anything to search by; if not, no thread is asked to find nothing."""
        ...

    def state_of(self, user: Hydrated) -> SourceState:
        """Tell how good what it searches by is: OK, STALE or UNAVAILABLE (EMPTY is for its caller to tell)."""
        ...
