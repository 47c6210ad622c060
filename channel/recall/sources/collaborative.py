"""U2I: items near the vector of the user alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import Pool, UserVectors
from serendipity.channel.recall.sources import Finds
from serendipity.channel.snapshot.calibration import Calibration
from serendipity.channel.snapshot.vectors import ItemVectors
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

    def propose(self, items: ItemVectors, user: Hydrated, vectors: UserVectors, wanted: int) -> NDArray[np.int64]:
        """Name the rows nearest to the user, more than wanted for the sake of the interests."""
        most = _SPARE * wanted + user.num_blocked
        return items.best(vectors.rows[0], most, user.allowed, user.ranges, user.unavailable)

    def score(self, pool: Pool, user: Hydrated, calibration: Calibration, fallback: bool) -> Finds:  # noqa: ARG002
        """Take the inner product with the user's vector."""
        raw = pool.scores[:, 0]
        probabilities = calibration.probabilities(self.source, fallback, raw)
        return Finds.without_interests(pool.proposed_by[self.source], raw, probabilities)

    def has_queries(self, user: Hydrated) -> bool:  # noqa: ARG002
        """Return True: everybody has a vector."""
        return True

    def state_of(self, user: Hydrated) -> channel_pb2.SourceState:  # noqa: ARG002
        """Return OK: it needs nothing that ages on its own."""
        return channel_pb2.SOURCE_STATE_OK
