"""What is counted and cleared away in the near-line store, beside the work itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.tables import NearlineTransaction, Table
from serendipity.v1 import records_pb2

_Row = TypeVar("_Row")

_PAGE = 2_000
"""Rows looked at, or removed, per transaction: some milliseconds, so that no other writer waits for long."""


@dataclass(frozen=True)
class Census:
    """What the store holds.

    ready, delayed, parked: entries to be tried now, later, and by an operator's word; by_cause: name of the cause, in
    lower case → entries not parked; oldest: when the oldest of these was queued, Unix seconds, 0 for none; records:
    users with interests; totals: name → what has happened since the store was made.
    """

    ready: int
    delayed: int
    parked: int
    by_cause: Mapping[str, int]
    oldest: int
    records: int
    totals: Mapping[str, int]


@dataclass(frozen=True)
class Cleared:
    """What was removed. records: of users; parked: entries; quiet: users who may be queued again; erased: users."""

    records: int = 0
    parked: int = 0
    quiet: int = 0
    erased: int = 0


def census(store: NearlineStore) -> Census:
    """Count what the store holds; a million entries take seconds. Raises StateUnavailable."""
    by_cause: Counter[str] = Counter()
    oldest = 0
    for entry in _each(store, store.tables.queue, lambda transaction, key: transaction.entry(key)):
        if not entry.parked:
            by_cause[cause_name(entry.cause)] += 1
            oldest = min(oldest or entry.enqueued_at, entry.enqueued_at)
    with store.reading() as transaction:
        return Census(
            ready=transaction.count(store.tables.ready),
            delayed=transaction.count(store.tables.delayed),
            parked=transaction.count(store.tables.parked),
            by_cause=dict(by_cause),
            oldest=oldest,
            records=transaction.count(store.tables.interests),
            totals=transaction.totals(),
        )


def clear(
    store: NearlineStore, *, generated_before: float, parked_before: float, now: float, erased: Iterable[bytes] = ()
) -> Cleared:
    """Remove interests generated, and entries parked, before a moment; what kept users quiet until now; erased users.

    generated_before, parked_before, now: Unix seconds; erased: keys of users (`layout.user_key`). Works in steps, so
    that other writers never wait for long. Raises StateUnavailable.
    """

    def is_old(transaction: NearlineTransaction, key: bytes) -> bool:
        interests = transaction.interests(key)
        return interests is not None and interests.generated_at < generated_before

    def is_given_up(transaction: NearlineTransaction, key: bytes) -> bool:
        entry = transaction.entry(key)
        return entry is not None and entry.parked and entry.not_before < parked_before

    def is_quiet_no_more(transaction: NearlineTransaction, key: bytes) -> bool:
        return 0 < transaction.quiet_until(key) <= now

    tables = store.tables
    return Cleared(
        records=_remove(store, tables.interests, is_old, NearlineTransaction.remove_records),
        parked=_remove(store, tables.queue, is_given_up, NearlineTransaction.remove),
        quiet=_remove(store, tables.quiet, is_quiet_no_more, lambda transaction, key: transaction.set_quiet(key, 0)),
        erased=_forget(store, iter(erased)),
    )


def cause_name(cause: records_pb2.RefreshCause) -> str:
    """Name a cause as metrics and operators do: missing, too_old …"""
    return records_pb2.RefreshCause.Name(cause).removeprefix("REFRESH_CAUSE_").lower()


def _each(
    store: NearlineStore, table: Table, read: Callable[[NearlineTransaction, bytes], _Row | None]
) -> Iterator[_Row]:
    """Read every row of a table, page by page: what changes meanwhile may or may not be seen."""
    start = b""
    while True:
        with store.reading() as transaction:
            keys = transaction.keys_after(table, start, _PAGE)
            rows = [row for key in keys if (row := read(transaction, key)) is not None]
        yield from rows
        if len(keys) < _PAGE:
            return
        start = keys[-1]


def _remove(
    store: NearlineStore,
    table: Table,
    is_over: Callable[[NearlineTransaction, bytes], bool],
    remove: Callable[[NearlineTransaction, bytes], object],
) -> int:
    """Remove the rows of a table that are over; returns how many."""
    removed = 0
    start = b""
    while True:
        with store.reading() as transaction:
            keys = transaction.keys_after(table, start, _PAGE)
            over = [key for key in keys if is_over(transaction, key)]
        if over:
            with store.writing() as transaction:
                # Whoever was refreshed or queued again between the two is no longer over.
                for key in over:
                    if is_over(transaction, key):
                        remove(transaction, key)
                        removed += 1
        if len(keys) < _PAGE:
            return removed
        start = keys[-1]


def _forget(store: NearlineStore, keys: Iterator[bytes]) -> int:
    forgotten = 0
    while some := list(islice(keys, _PAGE)):
        forgotten += store.forget_keys(some)
    return forgotten
