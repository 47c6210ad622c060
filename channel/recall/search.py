"""Every source proposes rows and scores the pool of them; whatever happens to one of them is told, not raised."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.filters import apply_filters
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.places import Places
from serendipity.channel.recall.pool import Pool, UserVectors, gather
from serendipity.channel.recall.query import source_name
from serendipity.channel.recall.sources import CandidateSource, Finds
from serendipity.channel.recall.sources.collaborative import CollaborativeSource
from serendipity.channel.recall.sources.graph import GraphSource
from serendipity.channel.recall.sources.group import GroupSource
from serendipity.channel.recall.sources.interest import InterestSource
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2

_log = logging.getLogger(__name__)

_COLLABORATIVE = CollaborativeSource()

CANDIDATE_SOURCES: tuple[CandidateSource, ...] = (InterestSource(), _COLLABORATIVE, GroupSource(), GraphSource())
"""All sources, in the order of query.SOURCES."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Found:
    """What a search found. pool: rows that may be returned; finds: by source, of those that scored it.

    statuses, filter_counts: for the answer; failures: what failed, in words.
    """

    pool: Pool
    finds: Mapping[int, Finds]
    statuses: Sequence[channel_pb2.SourceStatus]
    filter_counts: Sequence[channel_pb2.FilterCount]
    failures: Sequence[str]


def search(
    snapshot: Snapshot, user: Hydrated, vectors: UserVectors | None, wanted: int, places: Places | None = None
) -> Found:
    """Find what a user may be returned, and score it by each source.

    vectors: None where there is neither a user tower nor a stored vector, and sources that need one are unavailable;
    wanted: candidates asked of each source; places: which are searched, by default all that the request does not
    exclude. One that is not searched proposes nothing, and ranks what the others proposed.
    """
    places = places or Places.of_request(user.query)
    statuses = _Statuses(user, vectors, wanted, places)
    vectors = vectors or UserVectors.absent(snapshot.vectors.dim, len(user.interests))
    proposed: dict[int, NDArray[np.int64]] = {}
    finds: dict[int, Finds] = {}
    if not statuses.searching:
        pool, counts = apply_filters(Pool.empty(), user)
        return Found(pool, finds, statuses.end(finds, wanted), counts, statuses.failures)
    asked = [source for source in statuses.searching if source.source in places.searched]
    for source in asked:
        proposed |= statuses.propose(source, snapshot, user, vectors, wanted)
        # What lies near the user is searched by interests as well.
        if source.source == channel_pb2.SOURCE_INTEREST and _COLLABORATIVE not in asked:
            near = statuses.propose(_COLLABORATIVE, snapshot, user, vectors, wanted)
            for rows in near.values():
                proposed[source.source] = np.union1d(proposed.get(source.source, rows), rows)
    gathered = gather(proposed, vectors, user, snapshot)
    if gathered.failure:
        statuses.failures.append(gathered.failure)
    pool, counts = apply_filters(gathered, user)
    for source in statuses.searching:
        scored = statuses.run(source, partial(source.score, pool, user, vectors.fallback))
        if scored is not None:
            finds[source.source] = scored
    return Found(pool, finds, statuses.end(finds, wanted), counts, statuses.failures)


class _Statuses:
    """How the sources fare in one request. Whatever happens to one of them is told, not raised."""

    def __init__(self, user: Hydrated, vectors: UserVectors | None, wanted: int, places: Places) -> None:
        """vectors: of the user tower, or stored ones; wanted: candidates of each source; places: what each may have."""
        self.failures: list[str] = []
        self._seconds = dict.fromkeys((source.source for source in CANDIDATE_SOURCES), 0.0)
        self.statuses = {
            source.source: channel_pb2.SourceStatus(source=source.source, requested=wanted)
            for source in CANDIDATE_SOURCES
        }
        self.searching: list[CandidateSource] = []
        for source in CANDIDATE_SOURCES:
            status = self.statuses[source.source]
            status.propensity = places.propensities[source.source]
            if source.source not in places.searched:
                status.requested = 0
            if user.query.excludes(source.source):
                status.state = channel_pb2.SOURCE_STATE_EMPTY
                continue
            status.state = source.state_of(user)
            if source.needs_tower and vectors is None:
                why = "neither the user tower nor a stored user vector"
                self._fail(source, channel_pb2.SOURCE_STATE_UNAVAILABLE, why)
            elif source.has_queries(user):
                self.searching.append(source)
        if len(user.novel_categories) or user.novel_categories.key:
            self.statuses[channel_pb2.SOURCE_GROUP].novel_category_key = user.novel_categories.key

    def run(self, source: CandidateSource, work: Callable[[], _Result]) -> _Result | None:
        """Do a part of a source's work and take its time; None if it fails, after which it is not asked again."""
        begin = time.perf_counter()
        try:
            return work()
        except Exception as error:
            _log.exception("source %s failed", source_name(source.source))
            why = f"failed ({type(error).__name__}); the logs say why"
            self._fail(source, channel_pb2.SOURCE_STATE_UNAVAILABLE, why)
            return None
        finally:
            self._seconds[source.source] += time.perf_counter() - begin

    def propose(
        self, source: CandidateSource, snapshot: Snapshot, user: Hydrated, vectors: UserVectors, wanted: int
    ) -> dict[int, NDArray[np.int64]]:
        """Ask a source for its proposals, by its number; nothing if it fails."""
        rows = self.run(source, partial(source.propose, snapshot, user, vectors, wanted))
        return {} if rows is None else {source.source: rows}

    def end(self, finds: dict[int, Finds], wanted: int) -> list[channel_pb2.SourceStatus]:
        """Count what was found and say which sources had nothing to give."""
        for source, status in self.statuses.items():
            status.elapsed.FromNanoseconds(int(self._seconds[source] * 1e9))
            status.found = min(wanted, int(finds[source].found.sum())) if source in finds else 0
            if not status.found and status.state in (channel_pb2.SOURCE_STATE_OK, channel_pb2.SOURCE_STATE_STALE):
                status.state = channel_pb2.SOURCE_STATE_EMPTY
        return list(self.statuses.values())

    def _fail(self, source: CandidateSource, state: channel_pb2.SourceState, why: str) -> None:
        self.statuses[source.source].state = state
        self.failures.append(f"{source_name(source.source)}: {why}")
        self.searching = [other for other in self.searching if other is not source]
