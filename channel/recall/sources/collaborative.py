"""U2I: items near the vector of the user alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import Pool, UserVectors
from serendipity.channel.recall.sources import Finds
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2

_SPARE = 3
"""Rows proposed per candidate wanted. The best for the user with an interest in mind are among them, so that no search
per interest is needed: with 600 rows for 200 wanted, 99 % of the answer of an exact search by every vector
(`python -m benchmarks.channel`)."""


class CollaborativeSource:
    """Searches all rows the user may be shown.

    Novelty restricts the search, not only its result: of ALS's top 100 on The Complete Journey, 34 % would survive
    at 303 categories and 4 % at departments.
    """

    source = channel_pb2.SOURCE_COLLABORATIVE
    needs_tower = True

    def propose(self, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int) -> NDArray[np.int64]:
        """Name the rows nearest to the user, more than wanted for the sake of the interests, and the most clicked ones.

        What most people click is relevant to a user of whom little is known, and to a tower that learned from little.
        """
        most = _SPARE * wanted + user.num_blocked
        nearest = snapshot.vectors.best(vectors.rows[0], most, user.allowed, user.ranges, user.unavailable)
        merge = snapshot.merge
        popular = merge.popular[user.allowed[merge.popular_categories] & ~user.unavailable[merge.popular]]
        return np.union1d(nearest, popular[: wanted + user.num_blocked])

    def score(self, pool: Pool, user: Hydrated, fallback: bool) -> Finds:  # noqa: ARG002
        """Take the inner product with the user's vector."""
        found = pool.proposed_by.get(self.source, np.zeros(len(pool), np.bool_))
        return Finds.without_interests(found, pool.scores[:, 0])

    def has_queries(self, user: Hydrated) -> bool:  # noqa: ARG002
        """Return True: everybody has a vector."""
        return True

    def state_of(self, user: Hydrated) -> channel_pb2.SourceState:  # noqa: ARG002
        """Return OK: it needs nothing that ages on its own."""
        return channel_pb2.SOURCE_STATE_OK
