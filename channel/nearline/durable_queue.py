"""A queue of one kind of near-line work: durable, bounded, one entry per subject, shared by all processes of a host.

    queue.want(user_id="user", cause=…, priority=0.5)  worker; never waits
    entries = queue.take(64, now)                      near-line process; they stay queued until they are settled
    queue.settle([Completed(entry, records)], now)     records in and entry out, in one transaction

What is wanted waits in memory until a thread has committed it for all callers together (group commit). From then on it
outlives the process, and everything else here is one transaction. Tables, their names with the kind's prefix:

    queue    key of the subject → NearlineEntry, one entry a subject
    ready    entries to be tried, in the order in which they are due
    delayed  entries whose last attempt failed, by the moment of the next
    meta     name of a count → the count (8 bytes)

Of what is wanted is counted, in users or lists, those wanted again before their commit once: accepted: now queued;
merged: were queued already; refused: the queue is full of more urgent ones, or the subject cannot be stored; displaced:
queued ones that gave way to more urgent ones; overflowed: too many waited in memory; lost: the disk failed.

An entry that cannot be decoded counts as absent: it is not taken, is overwritten when its subject is wanted again, and
otherwise removed by housekeeping.
"""

from __future__ import annotations

import math
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import lmdb
import structlog

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.outcome import Completed, Failed, NearlineRecord, Outcome
from serendipity.channel.nearline.priority import BackOff, due, list_priority
from serendipity.channel.nearline.subject import Kind, entry_key, subject_name
from serendipity.channel.state.batch_writer import BatchWriter
from serendipity.channel.state.environment import Environment
from serendipity.channel.state.records import NUMBER, OrderedRecords
from serendipity.v1 import records_pb2

MAX_ERROR_CHARS = 300
"""Characters kept of why an attempt failed."""

READY, DELAYED = "ready", "delayed"

_PREFIXES = {Kind.INTERESTS: "", Kind.LISTS: "list_"}
_MOST_AT_ONCE = 10_000

_log = structlog.stdlib.get_logger(__name__)


class DurableQueue:
    """The queue of one kind. Raises StateUnavailable (StateFull) when it cannot be read or written.

    put_record: stores what was generated for a key, in the transaction in which its entry ends; max_entries: entries
    that may be queued at most; back_off: of failed attempts; max_waiting: wants that may wait in memory;
    commit_interval: seconds between commits of what is wanted; clock: Unix seconds.
    """

    def __init__(
        self,
        env: Environment,
        kind: Kind,
        put_record: Callable[[lmdb.Transaction, bytes, NearlineRecord], None],
        *,
        max_entries: int,
        back_off: BackOff,
        max_waiting: int,
        commit_interval: float,
        clock: Callable[[], float],
    ) -> None:
        self.kind = kind
        self._env = env
        prefix = _PREFIXES[kind]
        orders = {order: f"{prefix}{order}" for order in (READY, DELAYED)}
        self.entries = OrderedRecords(env, f"{prefix}queue", records_pb2.NearlineEntry, orders, _place)
        self._meta = env.table(f"{prefix}meta")
        self._put_record = put_record
        self._max_entries = max_entries
        self._back_off = back_off
        self._clock = clock
        self._counting = threading.Lock()
        self._uncounted = Counter[str]()
        self._writer = BatchWriter(f"nearline-{kind}", self._commit, capacity=max_waiting, interval=commit_interval)
        self.flush, self.close = self._writer.flush, self._writer.close

    def want(self, **fields: Any) -> None:
        """Ask for something; returns at once and never raises.

        fields: of NearlineEntry: the subject, cause, priority and requests. A subject queued already keeps the place of
        the most urgent want. What became of it is counted.
        """
        try:
            want = records_pb2.NearlineEntry(**fields)
            key = entry_key(want)
        except (ValueError, struct.error):
            self._count("refused")
        else:
            if not self._writer.put((key, want)):
                self._count("overflowed")

    def take(self, most: int, now: float) -> list[records_pb2.NearlineEntry]:
        """Read the entries that are to be tried now, most urgent first.

        They stay queued until they are settled: whoever takes them and dies has lost nothing. now: Unix seconds.
        """
        with self._env.reading() as txn:
            if not self.entries.keys(txn, DELAYED, 1, until=_milliseconds(now)):
                return self.entries.first(txn, READY, most)
        with self._env.writing() as txn:
            for key in self.entries.keys(txn, DELAYED, _MOST_AT_ONCE, until=_milliseconds(now)):
                self._make_ready(txn, key)
            return self.entries.first(txn, READY, most)

    def fail(self, entry: records_pb2.NearlineEntry, error: str, now: float) -> None:
        """Put an entry off after a failed attempt. now: Unix seconds."""
        self.settle([Failed(entry, error)], now)

    def settle(
        self, outcomes: Sequence[Outcome], now: float, counts: Mapping[str, int] = MappingProxyType({})
    ) -> Counter[str]:
        """End attempts, all in one transaction; returns how many entries ended how.

        now: Unix seconds; counts: what else is added to the queue's totals. completed: records stored; failed: to be
        tried again later; unneeded: removed without records; gone: no longer queued when they ended (the user was
        forgotten), nothing was stored. An entry wanted again since it was taken stays queued: its records are stored,
        its failures are forgotten.
        """
        with self._env.writing() as txn:
            ends = Counter(self._settle(txn, outcome, now) for outcome in outcomes)
            for name, count in (*ends.items(), *counts.items()):
                self.add(txn, name, count)
        return ends

    def add(self, txn: lmdb.Transaction, name: str, more: int = 1) -> None:
        """Raise a count."""
        if more:
            value = txn.get(name.encode(), db=self._meta)
            txn.put(name.encode(), NUMBER.pack((NUMBER.unpack(value)[0] if value else 0) + more), db=self._meta)

    def totals(self) -> Counter[str]:
        """What has happened since the store was made, by name."""
        with self._env.reading() as txn, txn.cursor(self._meta) as cursor:
            return Counter({bytes(name).decode(): int(NUMBER.unpack(value)[0]) for name, value in cursor})

    def delayed(self, most: int) -> list[records_pb2.NearlineEntry]:
        """Read the entries whose last attempt failed, those to be tried first before the others."""
        with self._env.reading() as txn:
            return self.entries.first(txn, DELAYED, most)

    def _settle(self, txn: lmdb.Transaction, outcome: Outcome, now: float) -> str:
        key = entry_key(outcome.entry)
        entry = self.entries.get_readable(txn, key)
        if entry is None:
            return "gone"
        if isinstance(outcome, Failed):
            return self._put_off(txn, key, entry, outcome.error, now)
        if isinstance(outcome, Completed):
            for record in outcome.records:
                self._put_record(txn, key, record)
        if entry.generation > outcome.entry.generation:
            entry.not_before, entry.attempts, entry.last_error = 0, 0, ""
            self.entries.put(txn, key, entry)
        else:
            self.entries.delete(txn, key)
        return "completed" if isinstance(outcome, Completed) else "unneeded"

    def _put_off(
        self, txn: lmdb.Transaction, key: bytes, entry: records_pb2.NearlineEntry, error: str, now: float
    ) -> str:
        entry.attempts += 1
        entry.last_error = error[:MAX_ERROR_CHARS]
        entry.not_before = math.ceil(now + self._back_off.delay(subject_name(entry), entry.attempts))
        self.entries.put(txn, key, entry)
        return "failed"

    def _commit(self, waiting: list[tuple[bytes, records_pb2.NearlineEntry]]) -> None:
        wants: dict[bytes, records_pb2.NearlineEntry] = {}
        for key, want in waiting:
            # Of several for one key the most urgent stays, for all their requests.
            before = wants.get(key)
            if before is None or want.priority > before.priority:
                wants[key] = want
            if before is not None:
                wants[key].requests = before.requests + want.requests
        with self._counting:
            ends, self._uncounted = self._uncounted, Counter()
        uncounted = ends.copy()
        try:
            with self._env.writing() as txn:
                now = self._clock()
                for key, want in wants.items():
                    ends.update(self._enter(txn, key, want, now))
                for name, count in ends.items():
                    self.add(txn, name, count)
        except StateUnavailable as error:
            _log.error("wanted work not queued", kind=self.kind, subjects=len(wants), error=str(error))
            with self._counting:
                self._uncounted += uncounted + Counter(lost=len(wants))

    def _count(self, end: str) -> None:
        """Count, with the next commit, what never gets to one."""
        with self._counting:
            self._uncounted[end] += 1

    def _enter(self, txn: lmdb.Transaction, key: bytes, want: records_pb2.NearlineEntry, now: float) -> list[str]:
        entry = self.entries.get_readable(txn, key)
        if entry is not None:
            if want.priority > entry.priority:
                entry.cause = want.cause
            entry.requests += want.requests
            entry.priority = max(entry.priority, want.priority, self._least_priority(entry))
            entry.generation += 1
            self.entries.put(txn, key, entry)
            return ["merged"]
        want.priority = max(want.priority, self._least_priority(want))
        want.enqueued_at, want.generation = int(now), 1
        ends = ["accepted"]
        if self.entries.size(txn, READY) + self.entries.size(txn, DELAYED) >= self._max_entries:
            last = self.entries.last_key(txn, READY)
            behind = None if last is None else self.entries.get_readable(txn, last)
            if last is None or behind is None or due(behind) <= due(want):
                return ["refused"]
            self.entries.delete(txn, last)
            ends.append("displaced")
        self.entries.put(txn, key, want)
        return ends

    def _least_priority(self, entry: records_pb2.NearlineEntry) -> float:
        return list_priority(entry.requests) if self.kind is Kind.LISTS else 0.0

    def _make_ready(self, txn: lmdb.Transaction, key: bytes) -> None:
        """Let a delayed entry be tried at once, if it can be read."""
        entry = self.entries.get_readable(txn, key)
        if entry is not None:
            entry.not_before = 0
            self.entries.put(txn, key, entry)


def _place(entry: records_pb2.NearlineEntry) -> tuple[str, int]:
    """Tell the order an entry stands in, and its moment there, in milliseconds."""
    if not entry.not_before:
        return READY, _milliseconds(due(entry))
    return DELAYED, _milliseconds(entry.not_before)


def _milliseconds(moment: float) -> int:
    return round(1_000 * moment)
