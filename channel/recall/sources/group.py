"""Group: the best items of the novel categories that the user's group may want (CoEA, arXiv 2508.00450)."""

from __future__ import annotations

import math

import numpy as np

from serendipity.channel.recall.candidates import NO_INTEREST, Candidates
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import SourceState
from serendipity.channel.recall.sources import UserVectors
from serendipity.channel.snapshot.vectors import ItemVectors

_FAIR_SHARES = 2
"""How many times its share of what is requested one category may find, of one share more than there are categories: a
single category may find all, one of two two thirds, one of ten less than a fifth."""


class GroupSource:
    """Searches each novel category's slice exactly, by the vector of the user alone.

    raw score = alignment · log(1 + exp(s)), s the inner product of user and item. What the towers learn is a score
    about linear in the probability of a click; its softplus keeps its order and its proportions, is positive also
    where s is not (an inner product below 0 would turn the order by alignment round), and does not saturate as σ(s)
    would: of the best 100 items of MovieLens-100k's users half lie above s = 3, one in twenty above 8.
    """

    source = Source.GROUP

    def find(self, vectors: ItemVectors, user: Hydrated, user_vectors: UserVectors, requested: int) -> Candidates:
        """Find the items with the highest alignment × relevance, none of the categories filling the answer."""
        novel = user.novel_categories
        quota = math.ceil(_FAIR_SHARES * requested / (len(novel) + 1))
        hits = vectors.search_slices(user_vectors.user, quota, novel.starts, novel.ends, user.unavailable)
        rows = np.concatenate([hit.rows for hit in hits])
        relevance = np.logaddexp(np.float32(0), np.concatenate([hit.scores for hit in hits]))
        raw = relevance * np.repeat(novel.alignments, [len(hit.rows) for hit in hits])
        best = np.lexsort((rows, -raw))[:requested]
        return Candidates(
            rows[best],
            np.full(len(best), self.source, np.int8),
            raw[best],
            np.full(len(best), NO_INTEREST, np.int16),
        )

    def has_queries(self, user: Hydrated) -> bool:
        """Tell whether there is a list with categories that the user may be shown."""
        return len(user.novel_categories) > 0

    def state_of(self, user: Hydrated) -> SourceState:
        """Return STALE for a list that other LLMs than the snapshot's wrote, UNAVAILABLE where none can be read."""
        return user.novel_categories.state
