"""Feedback of this host's users: durable, idempotent, shared by all workers of the host.

An event is acknowledged when its transaction is on disk. One thread per process commits for all concurrent callers
(group commit), since an fsync costs the same for one event as for a thousand; LMDB's own lock orders the processes.

Feedback earlier than a snapshot's `events_until` is in the snapshot as well; readers merge the two with
`novelty.latest`, which counts the same item at the same second once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from serendipity.channel.errors import StateFull, StateOverloaded, StateUnavailable
from serendipity.channel.state.batch_writer import BatchWriter
from serendipity.channel.state.feedback_event import FORGOTTEN, Ownership, as_kept, refusal
from serendipity.channel.state.feedback_tables import FeedbackTables, FeedbackTransaction
from serendipity.channel.state.records import NUMBER
from serendipity.event_times import EventTimes
from serendipity.layout import user_key
from serendipity.v1 import channel_pb2, records_pb2

DEFAULT_CLICK_TYPES = frozenset((channel_pb2.EVENT_TYPE_CLICK, channel_pb2.EVENT_TYPE_ORDER))
"""Event types that count as clicks while no snapshot says which do."""

_EVERYONE = Ownership()
_MAX_BATCH_EVENTS = 10_000
_LOG_PAGE = 1_000


@dataclass(frozen=True)
class _Call:
    """events: with their positions in the call; outcome: what is known of it so far."""

    events: Sequence[tuple[int, channel_pb2.FeedbackEvent]]
    outcome: channel_pb2.RecordFeedbackResponse
    click_types: frozenset[int]
    categories: Mapping[str, str]
    future: Future[channel_pb2.RecordFeedbackResponse]


class FeedbackStore:
    """The feedback of one host; every worker process opens it once.

    path: directory of the environment, made if missing; map_bytes: its largest size (address space, not disk, until
    it is used; the same in all processes); ownership: users whose feedback is kept here; is_forgotten: tells whose
    feedback must not be kept, and may raise StateUnavailable, in which case nothing is stored; clock: Unix seconds;
    max_waiting: calls that may wait for the disk. Raises StateUnavailable when it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        ownership: Ownership = _EVERYONE,
        is_forgotten: Callable[[str], bool] = lambda _: False,
        map_bytes: int = 16 << 30,
        max_waiting: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ownership = ownership
        self._is_forgotten = is_forgotten
        self._clock = clock
        self._tables = FeedbackTables(path, map_bytes)
        self._writer = BatchWriter("feedback-writer", self._commit, capacity=max_waiting)
        self._max_waiting = max_waiting

    def submit(
        self,
        events: Iterable[channel_pb2.FeedbackEvent],
        click_types: Collection[int] = DEFAULT_CLICK_TYPES,
        categories: Mapping[str, str] | None = None,
    ) -> Future[channel_pb2.RecordFeedbackResponse]:
        """Queue events; the future resolves when those accepted are on disk and visible to every reader of the host.

        click_types: event types that enter the user's clicks (the manifest's); categories: item id → name of its
        top-level category, where it has one. A time that is unset or cannot be becomes now.
        The future fails with StateUnavailable (StateFull) if the disk does. Raises StateOverloaded when too many
        calls wait and StateUnavailable after close.
        """
        now = self._clock()
        times = EventTimes("events", now)
        valid: list[tuple[int, channel_pb2.FeedbackEvent]] = []
        outcome = channel_pb2.RecordFeedbackResponse()
        for index, event in enumerate(events):
            if reason := refusal(event, self.ownership):
                outcome.rejected.add(index=index, event_id=event.event_id, reason=reason)
            else:
                valid.append((index, as_kept(event, None if times.stands(index, event) else now)))
        call = _Call(valid, outcome, frozenset(click_types), categories or {}, Future())
        if not valid:
            call.future.set_result(outcome)
            return call.future
        outcome.warnings.extend(times.warnings())
        if not self._writer.put(call):
            if self._writer.closed:
                raise StateUnavailable(f"{self._tables.env.name}: the store is closed")
            raise StateOverloaded(
                f"{self._tables.env.name}: {self._max_waiting} calls wait for the disk already; try again later"
            )
        return call.future

    def record(
        self,
        events: Iterable[channel_pb2.FeedbackEvent],
        click_types: Collection[int] = DEFAULT_CLICK_TYPES,
        categories: Mapping[str, str] | None = None,
    ) -> channel_pb2.RecordFeedbackResponse:
        """Store events and wait until they are on disk; see `submit`."""
        return self.submit(events, click_types, categories).result()

    def user(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        """Read a user's latest 200 clicks, 2,000 exposures, 200 dismissals, 50 searches and 50 other signals.

        None without any. All newest first. Measured: 12 µs with 100 clicks, 0.25 ms with 2,000 exposures. Events hold
        id, item, type and time, exposures item and time; the rest is in the log. Raises StateUnavailable when the store
        cannot be read.
        """
        with self._tables.env.reading() as txn:
            return self._tables.user(txn, user_key(user_id))

    def forget(self, user_id: str) -> bool:
        """Remove a user's record; False if there is none. What the log holds of the user expires with the log.

        Put the user on the erasure list first: feedback that waits for the disk is then refused. Raises
        StateUnavailable.
        """
        with self._tables.env.writing() as txn:
            return self._tables.delete_user(txn, user_key(user_id))

    def log(self, start: int = 0) -> Iterator[tuple[int, records_pb2.FeedbackLogRecord]]:
        """Iterate (sequence number, record) in the order of acknowledgement, from a sequence number on.

        Reads page by page, so that a long export does not keep LMDB from reusing pages. Raises StateUnavailable
        when the store cannot be read.
        """
        while True:
            with self._tables.env.reading() as txn:
                page = list(islice(self._tables.log.rows_from(txn, NUMBER.pack(start)), _LOG_PAGE))
            for key, record in page:
                start = int(NUMBER.unpack(key)[0]) + 1
                yield start - 1, record
            if not page:
                return

    def expire(self, before: float, now: float | None = None, rounds: float = 1) -> tuple[int, int]:
        """Remove log records recorded before a time (Unix seconds), their ids, and users without a later event.

        Afterwards an id removed here would be taken as new, so `before` must lie further back than any host repeats a
        call, and further back than the `events_until` of the snapshots in use. Works in steps, so that feedback never
        waits long for the write lock. now: what the disk agrees it is, see HostClock; later times are brought down to
        it. rounds: calls in which all users are visited. Returns how many log records and users were removed. Raises
        StateUnavailable.
        """
        now = self._clock() if now is None else now
        return self._tables.expire_log(before, now), self._tables.expire_users(before, now, rounds)

    def last_recorded(self) -> float | None:
        """When the latest event was recorded, Unix seconds; None without any. Raises StateUnavailable."""
        return self._tables.last_recorded()

    def close(self) -> None:
        """Store what was submitted, then close. May be called twice."""
        self._writer.close()
        self._tables.env.close()

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _commit(self, calls: Sequence[_Call]) -> None:
        if len(calls) > 1 and sum(len(call.events) for call in calls) > _MAX_BATCH_EVENTS:
            self._commit_halves(calls)
            return
        try:
            with self._tables.env.writing() as txn:
                transaction = FeedbackTransaction(self._tables, txn, self._clock())
                outcomes = self._add(transaction, calls)
                transaction.finish()
        except StateFull as error:
            if len(calls) > 1:
                # Together they do not fit, alone some may: no call is refused for those it happened to wait with.
                self._commit_halves(calls)
            else:
                _fail(calls, error)
        except Exception as error:
            failure = StateUnavailable(f"{self._tables.env.name}: not stored ({error})")
            failure.__cause__ = error
            _fail(calls, failure)
        else:
            # Only now: leaving the transaction above returned from fsync.
            for call, outcome in zip(calls, outcomes, strict=True):
                if call.future.set_running_or_notify_cancel():
                    call.future.set_result(outcome)

    def _commit_halves(self, calls: Sequence[_Call]) -> None:
        self._commit(calls[: len(calls) // 2])
        self._commit(calls[len(calls) // 2 :])

    def _add(
        self, transaction: FeedbackTransaction, calls: Sequence[_Call]
    ) -> list[channel_pb2.RecordFeedbackResponse]:
        # Asked inside the write transaction: a user is put on the list before the record is removed, which takes a
        # write transaction too, so feedback of before is removed with it and feedback of after is refused here.
        users = {event.user_id for call in calls for _, event in call.events}
        forgotten = {user_id for user_id in users if self._is_forgotten(user_id)}
        outcomes = []
        for call in calls:
            # A copy: what does not fit together is added again, call by call.
            outcome = channel_pb2.RecordFeedbackResponse()
            outcome.CopyFrom(call.outcome)
            for index, event in call.events:
                if event.user_id in forgotten:
                    outcome.rejected.add(index=index, event_id=event.event_id, reason=FORGOTTEN)
                elif transaction.add(event, call.click_types, call.categories):
                    outcome.accepted += 1
                else:
                    outcome.duplicates += 1
            outcome.rejected.sort(key=lambda rejected: rejected.index)
            outcomes.append(outcome)
        return outcomes


def host_events(log: Iterable[tuple[int, records_pb2.FeedbackLogRecord]]) -> Iterator[dict[str, str | int | None]]:
    """Turn log records into rows of the host schema's events table (docs/host-schema.md), ready for JSON lines."""
    for _, record in log:
        yield {
            "user_id": record.event.user_id,
            "item_id": record.event.item_id or None,
            "event": channel_pb2.EventType.Name(record.event.type).removeprefix("EVENT_TYPE_").lower(),
            "timestamp": record.event.time.seconds,
            "query": record.event.query or None,
            "value": None,
        }


def _fail(calls: Sequence[_Call], error: StateUnavailable) -> None:
    for call in calls:
        if call.future.set_running_or_notify_cancel():
            call.future.set_exception(error)
