"""The whole way of a request: query → hydrate → user vectors → sources → filters → scorer → selector → answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import ChannelError, DeadlinePassed, TowerAnswerInvalid, TowerError
from serendipity.channel.recall.answer import Answer, compose, title_of
from serendipity.channel.recall.batcher import Asked, Batcher
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.interests import path_reader
from serendipity.channel.recall.places import share_places
from serendipity.channel.recall.pool import UserVectors
from serendipity.channel.recall.query import RecallQuery
from serendipity.channel.recall.reasons import reasons_of
from serendipity.channel.recall.scorer import score
from serendipity.channel.recall.search import search
from serendipity.channel.recall.search_thread import SearchThread
from serendipity.channel.recall.selector import category_cap, diversify, select
from serendipity.channel.recall.shortfalls import tell_shortfalls
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import Lease, SnapshotHolder
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.tower import UserTower
from serendipity.features import TowerInputs
from serendipity.v1 import channel_pb2

STORED_VECTORS = "stored user vectors"
"""Name of what stands in for the user tower."""

_READ_AT_ONCE = 8
_LOOKED_UP_AT_ONCE = 500
"""Users read, and excluded items looked up, on the event loop: some 5 ms in all. More are read in the thread."""


@dataclass(frozen=True)
class _Embedded:
    """Users read and embedded. vectors: one per user, None without any; failure: why the tower did not answer.

    hydrated, embedded: seconds that each stage took.
    """

    asked: Sequence[Asked]
    users: Sequence[Hydrated]
    vectors: Sequence[UserVectors | None]
    failure: str
    hydrated: float
    embedded: float


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
    ) -> None:
        """Take the parts; they stay the caller's to close. clock: Unix seconds."""
        self._holder = holder
        self._tower = tower
        self._state = state or UserState()
        self._settings = settings or ChannelSettings()
        self._clock = clock
        self._batcher = Batcher(self._answer_each)
        self._thread = SearchThread()

    def now(self) -> int:
        """Return the moment queries are answered as of, Unix seconds. Raises SnapshotUnavailable."""
        if self._settings.clock == "wall":
            return int(self._clock())
        with self._holder.acquire() as lease:
            return lease.snapshot.events_until + 1

    def deadline(self, time_left: float | None, num_queries: int = 1) -> Deadline:
        """Turn the time a caller has left, in seconds, into a deadline; None: it set none. A batch gets more."""
        default = self._settings.default_deadline_ms / 1_000 * num_queries
        most = max(self._settings.max_deadline_ms / 1_000, default)
        return Deadline.after(default if time_left is None else min(time_left, most))

    def admit(self, time_left: float | None) -> None:
        """Raise Overloaded or DeadlinePassed if one more query cannot be answered in the time its caller has left."""
        self._batcher.admit(self.deadline(time_left))

    async def recall(self, query: RecallQuery, deadline: Deadline) -> Answer:
        """Answer one query; parts that are down or slow leave it poorer and marked degraded, never failed.

        Raises SnapshotUnavailable without any snapshot, DeadlinePassed when no time was left to search, Overloaded when
        it waited too long for its turn.
        """
        return await self._batcher.answer(query, deadline)

    async def recall_batch(self, queries: Sequence[RecallQuery], deadline: Deadline) -> Sequence[Answer | Exception]:
        """Answer several queries, in their order, with one call of the user tower; of each, an answer or why not."""
        return await self._answer_each([Asked(query) for query in queries], deadline) if queries else []

    async def _answer_each(self, asked: Sequence[Asked], deadline: Deadline) -> Sequence[Answer | Exception]:
        """Answer queries together; what is wrong with one of them does not fail its neighbours."""
        try:
            return await self._answer_batch(asked, deadline)
        except ChannelError as error:
            return [error] * len(asked)
        except Exception as error:
            if len(asked) == 1:
                return [error]
            return [(await self._answer_each([each], deadline))[0] for each in asked]

    async def _answer_batch(self, asked: Sequence[Asked], deadline: Deadline) -> Sequence[Answer | DeadlinePassed]:
        """Hydrate → user vectors → all the rest, for several users at once."""
        begin = time.perf_counter()
        with self._holder.acquire() as lease:
            users = await self._hydrate(lease, [each.query for each in asked], deadline)
            hydrated = time.perf_counter()
            vectors, failure = await self._user_vectors(lease, users, deadline)
            embedded = time.perf_counter()
            known = _Embedded(asked, users, vectors, failure, hydrated - begin, embedded - hydrated)
            budget = deadline.share(self._settings.sources_share)
            answers: list[Answer] = []

            def answer_users() -> Iterator[None]:
                for i in range(len(users)):
                    if budget.expired:
                        return
                    answers.append(self._answer(lease, i, known))
                    yield

            with contextlib.suppress(TimeoutError):
                await self._in_thread(lease, answer_users(), budget, deadline)
            # One that is still being made comes too late.
            done = answers[:]
            late = DeadlinePassed("no time was left to search")
            return [*done, *(late for _ in range(len(done), len(users)))]

    def close(self) -> None:
        """Let the search thread end; a search still running finishes on its own."""
        self._thread.close()

    async def _hydrate(self, lease: Lease, queries: Sequence[RecallQuery], deadline: Deadline) -> list[Hydrated]:
        if deadline.expired:
            raise DeadlinePassed(f"no time was left to read the records of {len(queries)} users")

        users: list[Hydrated] = []
        begun = False

        def read() -> Iterator[None]:
            nonlocal begun
            begun = True
            for query in queries:
                users.append(hydrate(lease, query, self._state, self._settings))
                yield

        excluded = sum(len(query.exclude_item_ids) for query in queries)
        if len(queries) <= _READ_AT_ONCE and excluded <= _LOOKED_UP_AT_ONCE:
            # A handful of reads of 5 µs each: a thread would cost more than it saves.
            return [hydrate(lease, query, self._state, self._settings) for query in queries]
        try:
            await self._in_thread(lease, read(), deadline.share(0.5), deadline)
        except TimeoutError as error:
            if begun:
                raise DeadlinePassed(f"reading the records of {len(queries)} users took too long") from error
            # The thread is busy with more urgent users; unread, these cannot be answered, not even poorly.
            return [hydrate(lease, query, self._state, self._settings) for query in queries]
        return users

    async def _user_vectors(
        self, lease: Lease, users: Sequence[Hydrated], deadline: Deadline
    ) -> tuple[list[UserVectors | None], str]:
        """Ask the tower for all users at once; if it fails, stored vectors stand in. The second value says why."""
        model, dim = lease.snapshot.tower_model, lease.snapshot.vectors.dim
        batch = users[0].inputs if len(users) == 1 else TowerInputs.stack([user.inputs for user in users])
        try:
            answer = await self._tower.user_vectors(model, batch, self._tower_deadline(deadline))
            if answer.shape[2] != dim:
                raise TowerAnswerInvalid(f"{model}: found {answer.shape[2]} dimensions, expected {dim}")
        except TowerError as error:
            stored = [UserVectors.stored(user.stored_vector, len(user.interests)) for user in users]
            return stored, f"user tower: {error}"
        return [
            UserVectors(rows[: 1 + len(user.interests)], fallback=False)
            for user, rows in zip(users, answer, strict=True)
        ], ""

    def _tower_deadline(self, deadline: Deadline) -> Deadline:
        """Give the tower its share of the time, of which a batch has much: one that hangs must not take it."""
        most = Deadline.after(self._settings.max_deadline_ms / 1_000 * self._settings.tower_share)
        return min(deadline.share(self._settings.tower_share), most, key=lambda each: each.at)

    def _answer(self, lease: Lease, i: int, known: _Embedded) -> Answer:
        """Sources → filters → scorer → selector → answer, for the i-th user."""
        user, vectors = known.users[i], known.vectors[i]
        snapshot, query, settings = lease.snapshot, user.query, self._settings
        tower_failure = known.failure if vectors is None or vectors.fallback else ""
        begin = time.perf_counter()
        wanted = ceil(query.count * settings.over_fetch)
        # Of a user of whom nothing is stored, and without the tower, the graph knows most; of a search, interests do.
        by_graph = not user.is_known or vectors is None or vectors.fallback
        certain = {channel_pb2.SOURCE_GRAPH: by_graph, channel_pb2.SOURCE_INTEREST: any(user.interests.searches)}
        places = share_places(
            query, snapshot.merge, settings, certain=[source for source, does in certain.items() if does]
        )
        found = search(snapshot, user, vectors, wanted, places)
        searched = time.perf_counter()
        is_soft = query.novelty_policy == channel_pb2.NOVELTY_POLICY_SOFT
        known_weight = settings.soft_novelty_weight if is_soft else 1.0
        given = (query.surprise, settings.surprise, snapshot.merge.surprise)
        surprise = next(each for each in given if each is not None)
        scored = score(found.pool, found.finds, user, snapshot.merge, wanted, known_weight, surprise, places.bounds)
        if settings.diversity:
            near = snapshot.vectors.vectors[scored.rows]
            scored = scored.take(diversify(scored.values, near, query.count, settings.diversity))
        cap = category_cap(query.count, settings.category_share)
        chosen = scored.take(select(scored, query.count, places.bounds, cap))
        paths = path_reader(user.interests, query.user_id, snapshot, self._state)
        numbers = snapshot.category_numbers
        reasons = reasons_of(
            chosen,
            user.interests,
            user.novel_categories,
            paths,
            lambda name: bool(user.clicked[numbers.get(name, 0)]),
            user.folded,
            lambda row: title_of(snapshot.item_ids.of_rows(np.array([row]))[0], snapshot),
        )
        response = compose(
            uuid.uuid4().hex,
            chosen,
            reasons,
            user,
            snapshot,
            source_statuses=found.statuses,
            filter_counts=found.filter_counts,
            shortfalls=tell_shortfalls(found, user, settings, len(scored), len(chosen)),
            degraded_reasons=(tower_failure, *user.failures, *found.failures, reasons.failure),
            user_tower=STORED_VECTORS if tower_failure else snapshot.tower_model,
        )
        ended = time.perf_counter()
        times = {"hydrate": known.hydrated, "user_tower": known.embedded, "sources": searched - begin}
        times |= {"rank": ended - searched, "total": ended - known.asked[i].at}
        for stage, seconds in times.items():
            getattr(response.timings, stage).FromNanoseconds(int(seconds * 1e9))
        return Answer(response, user, without_tower=bool(tower_failure))

    async def _in_thread(self, lease: Lease, steps: Iterator[None], until: Deadline, deadline: Deadline) -> None:
        """Run work that reads the snapshot in the search thread. Raises TimeoutError.

        until: how long it is waited for; deadline: that of the answer. The work has a lease of its own: a request that
        gives up must not let the snapshot be closed under it.
        """
        own = lease.split()
        try:
            future = self._thread.submit(steps, deadline.at)
        except RuntimeError:
            own.release()
            raise
        future.add_done_callback(lambda _: own.release())
        await asyncio.wait_for(asyncio.wrap_future(future), until.remaining)
