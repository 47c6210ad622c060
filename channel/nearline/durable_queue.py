"""A queue of one kind of near-line work: durable, bounded, one entry per subject, shared by all processes of a host.

    queue.want("user", Want("user", cause, priority))  worker; never waits
    entries = queue.take(64, now)                      near-line process; they stay queued until they are settled
    queue.settle([Completed(entry, records)], now)     records in and entry out, in one transaction

What is wanted waits in memory until a thread has committed it for all callers together (group commit). From then on it
outlives the process, and everything else here is one transaction.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.outcome import Completed, Failed, Outcome, Settled, Unneeded
from serendipity.channel.nearline.priority import BackOff, due
from serendipity.channel.nearline.queue_tables import QueueTables, QueueTransaction
from serendipity.channel.nearline.subject import Kind, SubjectError, entry_key, entry_of, subject_key, subject_name
from serendipity.channel.nearline.tables import NearlineTables, NearlineTransaction
from serendipity.channel.nearline.wanted import Want, Wanted, WantedCounts
from serendipity.v1 import records_pb2

MAX_ERROR_CHARS = 300
"""Characters kept of why an attempt failed."""

_MOST_AT_ONCE = 10_000

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class QueueRule:
    """How a queue admits and repeats.

    max_entries: entries that may be queued, and as many parked and as many counted, at most; back_off: of failed
    attempts; requests_needed: requests, of all processes together, after which a subject is queued; priority_of: least
    priority of a subject that so many requests asked for.
    """

    max_entries: int = 1_000_000
    back_off: BackOff = field(default_factory=BackOff)
    requests_needed: int = 1
    priority_of: Callable[[int], float] = lambda _: 0.0


class DurableQueue:
    """The queue of one kind. Raises StateUnavailable (StateFull) when it cannot be read or written.

    max_waiting: subjects that may wait in memory; commit_interval: seconds between commits of what is wanted; clock:
    Unix seconds.
    """

    def __init__(
        self,
        tables: NearlineTables,
        kind: Kind,
        rule: QueueRule,
        *,
        max_waiting: int,
        commit_interval: float,
        clock: Callable[[], float],
    ) -> None:
        self.kind = kind
        self._all = tables
        self._rule = rule
        self._clock = clock
        self._wanted = Wanted(self._commit, max_waiting=max_waiting, interval=commit_interval)

    @property
    def tables(self) -> QueueTables:
        """The tables of this queue."""
        return self._all.queues[self.kind]

    def want(self, want: Want) -> None:
        """Ask for something; returns at once and never raises.

        A subject queued already keeps the place of the most urgent want. What became of it is counted, see `wanted`.
        """
        try:
            key = subject_key(want.subject)
        except SubjectError:
            self._wanted.refuse()
        else:
            self._wanted.add(key, want)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was wanted before is on disk, or refused; False after `timeout` seconds."""
        return self._wanted.flush(timeout)

    def wanted(self) -> WantedCounts:
        """What became of the wants of this process so far."""
        return self._wanted.counts()

    def discard(self, key: bytes) -> None:
        """Drop what waits in memory for a key."""
        self._wanted.discard(key)

    def take(self, most: int, now: float) -> list[records_pb2.NearlineEntry]:
        """Read the entries that are to be tried now, most urgent first.

        They stay queued until they are settled: whoever takes them and dies has lost nothing. now: Unix seconds.
        """
        with self._all.reading() as transaction:
            queue = transaction.queue(self.kind)
            if not queue.keys(self.tables.delayed, 1, until=now):
                return queue.first(self.tables.ready, most)
        with self._all.writing() as transaction:
            queue = transaction.queue(self.kind)
            for key in queue.keys(self.tables.delayed, _MOST_AT_ONCE, until=now):
                _make_ready(queue, key)
            return queue.first(self.tables.ready, most)

    def fail(self, entry: records_pb2.NearlineEntry, error: str, now: float) -> None:
        """Put an entry off after a failed attempt, or park it after too many. now: Unix seconds."""
        self.settle([Failed(entry, error)], now)

    def settle(
        self, outcomes: Sequence[Outcome], now: float, counts: Mapping[str, int] = MappingProxyType({})
    ) -> Settled:
        """End attempts, all in one transaction. now: Unix seconds; counts: what else is added to the queue's totals.

        An entry wanted again since it was taken stays queued: its records are stored, its failures are forgotten.
        """
        with self._all.writing() as transaction:
            ends = Counter(self._settle(transaction, outcome, now) for outcome in outcomes)
            for name, count in (*ends.items(), *counts.items()):
                transaction.add(self.kind, name, count)
        return Settled(**ends)

    def ready(self) -> int:
        """Entries that are to be tried, those whose delay has just passed left out."""
        with self._all.reading() as transaction:
            return transaction.count(self.tables.ready)

    def totals(self) -> dict[str, int]:
        """What has happened since the store was made, by name."""
        with self._all.reading() as transaction:
            return transaction.totals(self.kind)

    def parked(self, most: int = 1_000) -> list[records_pb2.NearlineEntry]:
        """Read the entries that were tried too often, those parked first before the others."""
        with self._all.reading() as transaction:
            return transaction.queue(self.kind).first(self.tables.parked, most)

    def retry(self, key: bytes | None = None) -> int:
        """Let a parked or delayed entry, or all of them, be tried at once as if they never failed; returns how many."""
        with self._all.writing() as transaction:
            queue = transaction.queue(self.kind)
            if key is not None:
                return int(_make_ready(queue, key, afresh=True))
            return sum(
                _make_ready(queue, key, afresh=True)
                for order in (self.tables.parked, self.tables.delayed)
                for key in queue.keys(order, 2 * self._rule.max_entries)
            )

    def close(self) -> None:
        """Commit what is wanted. May be called twice."""
        self._wanted.close()

    def _settle(self, transaction: NearlineTransaction, outcome: Outcome, now: float) -> str:
        key, queue = entry_key(outcome.entry), transaction.queue(self.kind)
        entry = queue.entry(key)
        if entry is None:
            return "gone"
        if isinstance(outcome, Failed):
            return self._put_off(queue, key, entry, outcome.error, now)
        if isinstance(outcome, Completed):
            for record in outcome.records:
                transaction.put(key, record)
        if entry.generation > outcome.entry.generation:
            _make_ready(queue, key, afresh=True)
        else:
            queue.remove(key)
            if isinstance(outcome, Unneeded) and outcome.quiet_until:
                queue.set_quiet(key, outcome.quiet_until)
        return "completed" if isinstance(outcome, Completed) else "unneeded"

    def _put_off(
        self, queue: QueueTransaction, key: bytes, entry: records_pb2.NearlineEntry, error: str, now: float
    ) -> str:
        back_off = self._rule.back_off
        entry.attempts += 1
        entry.last_error = error[:MAX_ERROR_CHARS]
        entry.parked = entry.attempts >= back_off.max_attempts
        if entry.parked:
            entry.not_before = math.ceil(now)
            if queue.count(self.tables.parked) >= self._rule.max_entries:
                for oldest in queue.keys(self.tables.parked, 1):
                    queue.remove(oldest)
        else:
            entry.not_before = math.ceil(now + back_off.delay(subject_name(entry), entry.attempts))
        queue.put(key, entry)
        return "parked" if entry.parked else "failed"

    def _commit(self, wants: Mapping[bytes, Want]) -> WantedCounts:
        try:
            with self._all.writing() as transaction:
                counts = Counter[str]()
                now, queue = self._clock(), transaction.queue(self.kind)
                for key, want in wants.items():
                    counts.update(self._enter(queue, key, want, now))
                for name in ("refused", "displaced"):
                    transaction.add(self.kind, name, counts[name])
        except StateUnavailable as error:
            _log.error("wanted work not queued", kind=self.kind, subjects=len(wants), error=str(error))
            return WantedCounts(lost=len(wants))
        return WantedCounts(**counts)

    def _enter(self, queue: QueueTransaction, key: bytes, want: Want, now: float) -> list[str]:
        by_operator = want.cause == records_pb2.REFRESH_CAUSE_OPERATOR
        entry = queue.entry(key)
        if entry is not None:
            # What an operator asked for is done whatever is stored, so it stays known that one did.
            if by_operator or (want.priority > entry.priority and entry.cause != records_pb2.REFRESH_CAUSE_OPERATOR):
                entry.cause = want.cause
            entry.requests += want.requests
            entry.priority = max(entry.priority, want.priority, self._rule.priority_of(entry.requests))
            entry.generation += 1
            queue.put(key, entry)
            if by_operator:
                _make_ready(queue, key, afresh=True)
            return ["merged"]
        if queue.quiet_until(key) > now and not by_operator:
            return ["quiet"]
        requests = queue.asked(key)[0] + want.requests
        if requests < self._rule.requests_needed:
            self._count(queue, key, requests, now)
            return ["counted"]
        entry = entry_of(want.subject)
        entry.cause, entry.requests = want.cause, requests
        entry.priority = max(want.priority, self._rule.priority_of(requests))
        entry.enqueued_at, entry.generation = int(now), 1
        outcome = ["accepted"]
        if queue.num_waiting() >= self._rule.max_entries:
            last = queue.last_ready()
            behind = None if last is None else queue.entry(last)
            if last is None or behind is None or due(behind) <= due(entry):
                if self._rule.requests_needed > 1:
                    # More requests make it more urgent, until it displaces another.
                    self._count(queue, key, requests, now)
                return ["refused"]
            queue.remove(last)
            outcome.append("displaced")
        queue.put(key, entry)
        queue.set_asked(key, 0, 0)
        return outcome

    def _count(self, queue: QueueTransaction, key: bytes, requests: int, now: float) -> None:
        if queue.count(self.tables.asked) >= self._rule.max_entries:
            # Cheaper than an order by age, and what is asked for often is soon counted again.
            queue.forget_asked()
        queue.set_asked(key, requests, int(now))


def _make_ready(queue: QueueTransaction, key: bytes, *, afresh: bool = False) -> bool:
    """Let an entry be tried at once; afresh: as if it never failed. False if there is none."""
    entry = queue.entry(key)
    if entry is None:
        return False
    entry.not_before, entry.parked = 0, False
    if afresh:
        entry.attempts, entry.last_error = 0, ""
    queue.put(key, entry)
    return True
