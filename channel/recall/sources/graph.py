"""Graph: items near the user in the graph of users, items, knowledge and interests (CIKG, arXiv 2412.13544)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import Pool, UserVectors
from serendipity.channel.recall.sources import Finds
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2


class GraphSource:
    """Searches all rows the user may be shown, by the user as folded in from clicks and held interests."""

    source = channel_pb2.SOURCE_GRAPH
    needs_tower = False

    def propose(self, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int) -> NDArray[np.int64]:  # noqa: ARG002
        """Name the rows nearest to the user in the graph, but for those that nothing of the user speaks for."""
        assert user.folded is not None  # has_queries
        most = wanted + user.num_blocked
        graph = user.folded.graph
        rows = graph.items.best(user.folded.vector, most, user.allowed, user.ranges, user.unavailable)
        # Where few may be shown, the nearest hold items that the graph does not know, for which there is no reason.
        return rows[user.folded.scores(rows) > 0]

    def score(self, pool: Pool, user: Hydrated, fallback: bool) -> Finds:  # noqa: ARG002
        """Take the inner product in the graph; what nothing of the user speaks for is not found."""
        assert user.folded is not None  # has_queries
        raw = user.folded.scores(pool.rows)
        return Finds.without_interests(raw > 0, raw)

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether the graph knows anything that the user clicked or holds."""
        return bool(user.folded)

    def state_of(self, user: Hydrated) -> channel_pb2.SourceState:  # noqa: ARG002
        """Return OK: it is as young as the user's latest click."""
        return channel_pb2.SOURCE_STATE_OK
