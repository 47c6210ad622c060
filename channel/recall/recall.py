"""The whole way of a request: query → hydrate → sources → filters → scorer → selector → answer."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import TypeVar

import numpy as np

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed, TowerAnswerInvalid, TowerError
from serendipity.channel.recall.answer import compose
from serendipity.channel.recall.candidates import Candidates
from serendipity.channel.recall.filters import apply_filters
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.interests import path_reader
from serendipity.channel.recall.query import NoveltyPolicy, RecallQuery
from serendipity.channel.recall.reasons import intern_reasons
from serendipity.channel.recall.recalled import Recalled, SourceOutcome, SourceState, StageTimes
from serendipity.channel.recall.scorer import score
from serendipity.channel.recall.selector import category_cap, select, source_quotas
from serendipity.channel.recall.sources import CandidateSource, UserVectors
from serendipity.channel.recall.sources.collaborative import CollaborativeSource
from serendipity.channel.recall.sources.group import GroupSource
from serendipity.channel.recall.sources.interest import InterestSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Lease, Snapshot, SnapshotHolder
from serendipity.channel.state.state import EmptyUserState, UserState
from serendipity.channel.tower.tower import UserTower
from serendipity.features import TowerInputs
from serendipity.novelty import is_novel

_log = logging.getLogger(__name__)

STORED_VECTORS = "stored user vectors"
"""Name of what stands in for the user tower."""

SOURCES: tuple[CandidateSource, ...] = (InterestSource(), CollaborativeSource(), GroupSource())
"""All sources, in the order their outcomes are listed."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Found:
    candidates: Candidates
    outcome: SourceOutcome
    failure: str = ""


class Channel:
    """Recalls candidates for one user or several. Knows nothing of gRPC; belongs to one event loop."""

    def __init__(
        self,
        holder: SnapshotHolder,
        tower: UserTower,
        state: UserState | None = None,
        settings: ChannelSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Take the parts; they stay the caller's to close. clock: Unix seconds; new_id: names answers."""
        self._holder = holder
        self._tower = tower
        self._state = state or EmptyUserState()
        self._settings = settings or ChannelSettings()
        self._clock = clock
        self._new_id = new_id
        self._threads = ThreadPoolExecutor(self._settings.search_threads, thread_name_prefix="search")

    def now(self) -> int:
        """Return the moment queries are answered as of, Unix seconds. Raises SnapshotUnavailable."""
        if self._settings.clock == "wall":
            return int(self._clock())
        with self._holder.acquire() as lease:
            return lease.snapshot.versions.events_until + 1

    def deadline(self, time_left: float | None, num_queries: int = 1) -> Deadline:
        """Turn the time a caller has left, in seconds, into a deadline; None: it set none. A batch gets more."""
        default = self._settings.default_deadline_ms / 1_000 * num_queries
        most = max(self._settings.max_deadline_ms / 1_000, default)
        return Deadline.after(default if time_left is None else min(time_left, most))

    async def recall(self, query: RecallQuery, deadline: Deadline) -> Recalled:
        """Answer one query; parts that are down or slow leave it poorer and marked degraded, never failed.

        Raises SnapshotUnavailable without any snapshot, DeadlinePassed when not even the user could be read in time.
        """
        return (await self.recall_batch([query], deadline))[0]

    async def recall_batch(self, queries: Sequence[RecallQuery], deadline: Deadline) -> list[Recalled]:
        """Answer several queries, in their order, with one call of the user tower. Raises as `recall`."""
        if not queries:
            return []
        start = time.perf_counter()
        with self._holder.acquire() as lease:
            users = await self._hydrate(lease, queries, deadline)
            hydrated = time.perf_counter()
            vectors, tower_failure = await self._user_vectors(lease.snapshot, users, deadline)
            embedded = time.perf_counter()
            times = StageTimes(hydrate=hydrated - start, user_tower=embedded - hydrated)
            answers = (
                self._answer(lease, user, of_user, tower_failure, deadline, start, times)
                for user, of_user in zip(users, vectors, strict=True)
            )
            return list(await asyncio.gather(*answers))

    def close(self) -> None:
        """Let the search threads end; searches still running finish on their own."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _hydrate(self, lease: Lease, queries: Sequence[RecallQuery], deadline: Deadline) -> list[Hydrated]:
        if deadline.expired:
            raise DeadlinePassed(f"no time was left to read the records of {len(queries)} users")
        if len(queries) == 1:
            # A handful of reads of 5 µs each: a thread would cost more than it saves.
            return [hydrate(lease, queries[0], self._state, self._settings)]

        def read() -> list[Hydrated]:
            return [hydrate(lease, query, self._state, self._settings) for query in queries]

        try:
            return await asyncio.wait_for(self._in_thread(lease, read), deadline.remaining)
        except TimeoutError as error:
            raise DeadlinePassed(f"reading the records of {len(queries)} users took too long") from error

    async def _user_vectors(
        self, snapshot: Snapshot, users: Sequence[Hydrated], deadline: Deadline
    ) -> tuple[list[UserVectors | None], str]:
        """Ask the tower for all users at once; if it fails, stored vectors stand in. The second value says why."""
        inputs = users[0].inputs if len(users) == 1 else TowerInputs.stack([user.inputs for user in users])
        try:
            budget = deadline.share(self._settings.tower_share)
            vectors = await self._tower.user_vectors(snapshot.tower_model, inputs, budget)
            if vectors.shape[2] != snapshot.vectors.dim:
                found, expected = vectors.shape[2], snapshot.vectors.dim
                raise TowerAnswerInvalid(f"{snapshot.tower_model}: found {found} dimensions, expected {expected}")
        except TowerError as error:
            return [_stored(user) for user in users], f"user tower: {error}"
        return [
            UserVectors(rows[0], rows[1 : 1 + len(user.interests)], fallback=False)
            for user, rows in zip(users, vectors, strict=True)
        ], ""

    async def _answer(
        self,
        lease: Lease,
        user: Hydrated,
        vectors: UserVectors | None,
        tower_failure: str,
        deadline: Deadline,
        start: float,
        times: StageTimes,
    ) -> Recalled:
        """Search for one user and rank what is found."""
        snapshot, query = lease.snapshot, user.query
        begin = time.perf_counter()
        budget = deadline.share(self._settings.sources_share)
        quotas = source_quotas(query, self._settings)
        found = await asyncio.gather(*(self._find(source, lease, user, vectors, budget) for source in SOURCES))
        searched = time.perf_counter()
        candidates, filter_outcomes = apply_filters(
            Candidates.concatenate([part.candidates for part in found]), user, snapshot
        )
        categories = snapshot.categories_of(candidates.rows + 1)
        scored = score(
            candidates,
            categories,
            is_novel(categories, user.clicked),
            snapshot.id_order,
            snapshot.calibration,
            interest_factors=user.interests.factors,
            fallback=vectors is not None and vectors.fallback,
            known_weight=self._settings.soft_novelty_weight if query.novelty_policy is NoveltyPolicy.SOFT else 1.0,
        )
        cap = category_cap(query.count, self._settings.category_share)
        chosen = scored.take(select(scored, query.count, quotas, cap))
        reasons = intern_reasons(
            chosen,
            user.interests,
            user.novel_categories,
            path_reader(user.interests, query.user_id, snapshot, self._state),
        )
        degraded = (tower_failure, *user.degraded_reasons, *(part.failure for part in found), reasons.failure)
        recalled = compose(
            self._new_id(),
            chosen,
            reasons,
            user,
            snapshot,
            source_outcomes=tuple(part.outcome for part in found),
            filter_outcomes=filter_outcomes,
            degraded_reasons=tuple(reason for reason in degraded if reason),
            user_tower=STORED_VECTORS if tower_failure else snapshot.versions.user_tower,
        )
        end = time.perf_counter()
        return replace(recalled, times=replace(times, total=end - start, sources=searched - begin, rank=end - searched))

    async def _find(
        self,
        source: CandidateSource,
        lease: Lease,
        user: Hydrated,
        vectors: UserVectors | None,
        budget: Deadline,
    ) -> _Found:
        """Run one source and measure it; whatever happens to it is told, not raised."""
        if user.query.excludes(source.source):
            # Its finds would only hide those of others: an item goes to the source that scores it highest.
            return _Found(Candidates.empty(), SourceOutcome(source.source, SourceState.EMPTY, 0, 0, 0, 0.0))
        blocked = len(user.excluded) + len(user.served)
        requested = min(ceil(user.query.count * self._settings.over_fetch) + blocked, max(1, len(user.ranges)))
        name = source.source.name.lower()
        begin = time.perf_counter()
        candidates, state, why = Candidates.empty(), source.state_of(user), ""
        if vectors is None:
            state, why = SourceState.UNAVAILABLE, f"{name}: neither the user tower nor a stored user vector"
        elif source.has_queries(user):
            try:
                search = partial(source.find, lease.snapshot.vectors, user, vectors, requested)
                candidates = await asyncio.wait_for(self._in_thread(lease, search), budget.remaining)
            except TimeoutError:
                state, why = SourceState.TIMEOUT, f"{name}: did not answer before the deadline"
            except Exception as error:
                # Whatever is wrong with one source, the others still answer.
                _log.exception("source %s failed", name)
                state, why = SourceState.UNAVAILABLE, f"{name}: failed ({type(error).__name__}); the logs say why"
        found = candidates.num_items
        if not found and state in (SourceState.OK, SourceState.STALE):
            state = SourceState.EMPTY
        elapsed = time.perf_counter() - begin
        return _Found(candidates, SourceOutcome(source.source, state, requested, found, 0, elapsed), why)

    def _in_thread(self, lease: Lease, work: Callable[[], _Result]) -> asyncio.Future[_Result]:
        """Run work that reads the snapshot in a thread.

        It has a lease of its own: a request that gives up must not let the snapshot be closed under it.
        """
        own = lease.split()
        try:
            future = self._threads.submit(work)
        except RuntimeError:
            own.release()
            raise
        future.add_done_callback(lambda _: own.release())
        return asyncio.wrap_future(future)


def _stored(user: Hydrated) -> UserVectors | None:
    if user.stored_vector is None:
        return None
    every = np.broadcast_to(user.stored_vector, (len(user.interests), len(user.stored_vector)))
    return UserVectors(user.stored_vector, every, fallback=True)
