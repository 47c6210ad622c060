"""Group: the best items of the novel categories that the user's group may want (CoEA, arXiv 2508.00450)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.pool import Pool, UserVectors
from serendipity.channel.recall.sources import Finds
from serendipity.channel.snapshot.row_ranges import OwnedRanges
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2

_FAIR_SHARES = 2
"""How many times its share of what is wanted one category may propose, of one share more than there are categories: a
single category may propose all, one of two two thirds, one of ten less than a fifth."""


class GroupSource:
    """Searches each novel category's slice exactly, by the vector of the user alone.

    raw score = alignment · log(1 + exp(s)), s the inner product of user and item. What the towers learn is a score
    about linear in the probability of a click; its softplus keeps its order and its proportions, is positive also
    where s is not (an inner product below 0 would turn the order by alignment round), and does not saturate as σ(s)
    would: of the best 100 items of MovieLens-100k's users half lie above s = 3, one in twenty above 8.
    """

    source = channel_pb2.SOURCE_GROUP
    needs_tower = True

    def propose(self, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int) -> NDArray[np.int64]:
        """Name the rows of each category nearest to the user, none of the categories filling the answer."""
        novel = user.novel_categories
        share = math.ceil(_FAIR_SHARES * wanted / (len(novel) + 1)) + user.num_blocked
        slices = OwnedRanges(novel.starts, novel.ends, np.zeros(len(novel), np.int64), 1)
        return snapshot.vectors.best_of_each(vectors.rows[:1], share, slices, user.unavailable)

    def score(self, pool: Pool, user: Hydrated, fallback: bool) -> Finds:  # noqa: ARG002
        """Weigh the relevance of the rows in categories of the list by alignment."""
        alignments = user.novel_categories.alignments_of(pool.categories)
        return Finds.without_interests(alignments > 0, alignments * np.logaddexp(np.float32(0), pool.scores[:, 0]))

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether there is a list with categories that the user may be shown."""
        return len(user.novel_categories) > 0

    def state_of(self, user: Hydrated) -> channel_pb2.SourceState:
        """Return STALE for a list that other LLMs than the snapshot's wrote, UNAVAILABLE where none can be read."""
        return user.novel_categories.state
