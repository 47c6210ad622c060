"""I2I: items near the vector of the user with one latent interest (Dewu, arXiv 2508.04032)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.interests import Freshness
from serendipity.channel.recall.pool import Pool, UserVectors
from serendipity.channel.recall.sources import Finds
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2

_LEAST = 64
"""Rows proposed per interest at least, and a third of what is wanted if that is more."""


class InterestSource:
    """Searches the rows that each interest is grounded in; these and what lies near the user all of them score."""

    source = channel_pb2.SOURCE_INTEREST
    needs_tower = True

    def propose(self, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int) -> NDArray[np.int64]:
        """Name, of the rows each interest is grounded in, those nearest to the user with that interest in mind."""
        most = max(_LEAST, wanted // 3) + user.num_blocked
        return snapshot.vectors.best_of_each(vectors.rows[1:], most, user.interests.grounded, user.unavailable)

    def score(self, pool: Pool, user: Hydrated, fallback: bool) -> Finds:
        """Take each row's best interest; an interest that the row is grounded in leads to it, where there is one.

        Scores are about linear in the probability of a click: what feedback moved an interest's weight by moves those
        above 0 as much. While the stored user vector stands in for all interests, only the grounded rows count:
        elsewhere they would repeat U2I's finds.
        """
        raw = pool.scores[:, 1:]
        if fallback:
            raw = np.where(pool.grounded, raw, np.float32(-np.inf))
        raw = np.where(raw > 0, raw * user.interests.factors, raw)
        best, grounded = raw.max(axis=1), np.where(pool.grounded, raw, -np.inf)
        lead = np.where(np.isfinite(grounded).any(axis=1), grounded.argmax(axis=1), raw.argmax(axis=1))
        return Finds(np.isfinite(best), best, lead.astype(np.int16))

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether the user has interests."""
        return len(user.interests) > 0

    def state_of(self, user: Hydrated) -> channel_pb2.SourceState:
        """Return STALE for interests past their life, UNAVAILABLE where they cannot be read, else OK."""
        if user.interests.freshness is Freshness.UNREADABLE:
            return channel_pb2.SOURCE_STATE_UNAVAILABLE
        stale = user.interests.freshness is Freshness.STALE
        return channel_pb2.SOURCE_STATE_STALE if stale else channel_pb2.SOURCE_STATE_OK
