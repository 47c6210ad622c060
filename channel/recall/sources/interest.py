"""I2I: items near the vector of the user with one latent interest (Dewu, arXiv 2508.04032)."""

from __future__ import annotations

import numpy as np

from serendipity.channel.recall.candidates import Candidates
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.interests import Freshness
from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import SourceState
from serendipity.channel.recall.sources import UserVectors
from serendipity.channel.snapshot.vectors import Hits, ItemVectors

_FAIR_SHARES = 4
"""How many times its even share of what is requested one interest may find. It bounds the work for large answers;
the cap per category would seldom let one interest have more."""

_LEAST = 50
"""Candidates per interest that are always asked for, if so many are requested."""


class InterestSource:
    """Searches, per interest, the rows it is grounded in and openly among all rows the user may be shown."""

    source = Source.INTEREST

    def find(self, vectors: ItemVectors, user: Hydrated, user_vectors: UserVectors, requested: int) -> Candidates:
        """Find the items with the highest inner product with each interest's vector.

        While the stored user vector stands in for all interests an open search would repeat U2I's: only the grounded
        rows are searched then.
        """
        k = min(requested, max(_LEAST, _FAIR_SHARES * requested // len(user.interests)))
        finds = [
            (i, hits)
            for i, ranges in enumerate(user.interests.ranges)
            for hits in vectors.search_exactly(user_vectors.interests[i : i + 1], k, ranges, user.unavailable)
        ]
        if not user_vectors.fallback:
            opened = vectors.search_openly(user_vectors.interests, k, user.ranges, user.unavailable)
            finds += list(enumerate(opened))
        return self._merged(finds)

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether the user has interests."""
        return len(user.interests) > 0

    def state_of(self, user: Hydrated) -> SourceState:
        """Return STALE for interests past their life, UNAVAILABLE where they cannot be read, else OK."""
        if user.interests.freshness is Freshness.UNREADABLE:
            return SourceState.UNAVAILABLE
        return SourceState.STALE if user.interests.freshness is Freshness.STALE else SourceState.OK

    def _merged(self, finds: list[tuple[int, Hits]]) -> Candidates:
        """Keep each pair of item and interest once; it may have been found both ways."""
        rows = np.concatenate([hits.rows for _, hits in finds])
        interests = np.concatenate([np.full(len(hits.rows), i, np.int16) for i, hits in finds])
        raw = np.concatenate([hits.scores for _, hits in finds])
        _, first = np.unique(rows * (np.iinfo(np.int16).max + 1) + interests, return_index=True)
        return Candidates(rows[first], np.full(len(first), self.source, np.int8), raw[first], interests[first])
