"""Housekeeping of the near-line store: what is counted, and what is removed once it has expired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError

from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.nearline.tables import NearlineTransaction
from serendipity.channel.state.environment import Table
from serendipity.v1 import records_pb2

_Row = TypeVar("_Row")

_PAGE = 2_000
"""Rows looked at, or removed, per transaction: some milliseconds, so that no other writer waits for long."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Census:
    """What the store holds of one kind.

    ready, delayed, parked: entries to be tried now, later, and once an operator retries them; by_cause: its name in
    lower case → entries not parked; oldest: when the oldest of these was queued, Unix seconds, 0 for none; counted:
    subjects asked for too seldom so far; records: users with interests, users with groups, or lists; totals: name →
    what has happened since the store was made.
    """

    ready: int
    delayed: int
    parked: int
    by_cause: Mapping[str, int]
    oldest: int
    counted: int
    records: int
    totals: Mapping[str, int]


@dataclass(frozen=True)
class Cleared:
    """What was removed.

    records: of users' interests; groups: of users; lists: of group models no longer kept, or empty for long enough;
    parked: entries; quiet: subjects that may be queued again; counted: subjects asked for too seldom; erased: users.
    """

    records: int = 0
    groups: int = 0
    lists: int = 0
    parked: int = 0
    quiet: int = 0
    counted: int = 0
    erased: int = 0


@dataclass(frozen=True)
class Expiry:
    """What has expired: moments in Unix seconds.

    generated_before: interests; groups_before: users' groups; empty_before: lists on which nothing reached the
    threshold; parked_before: entries given up; asked_before: counts of requests; group_models: those of the snapshots
    on disk, whose lists and groups stay, None where that is not known and all stay.
    """

    generated_before: float
    parked_before: float
    groups_before: float = 0.0
    empty_before: float = 0.0
    asked_before: float = 0.0
    group_models: Collection[str] | None = None


def census(store: NearlineStore, kind: Kind = Kind.INTERESTS) -> Census:
    """Count what the store holds of a kind; a million entries take seconds. Raises StateUnavailable."""
    by_cause: Counter[str] = Counter()
    oldest = 0
    tables = store.queue(kind).tables
    for entry in _each(store, tables.queue, lambda transaction, key: transaction.queue(kind).entry(key)):
        if not entry.parked:
            by_cause[cause_name(entry.cause)] += 1
            oldest = min(oldest or entry.enqueued_at, entry.enqueued_at)
    records = {
        Kind.INTERESTS: store.tables.interests,
        Kind.GROUPS: store.tables.groups,
        Kind.LISTS: store.tables.lists,
    }
    with store.tables.reading() as transaction:
        return Census(
            ready=transaction.count(tables.ready),
            delayed=transaction.count(tables.delayed),
            parked=transaction.count(tables.parked),
            by_cause=dict(by_cause),
            oldest=oldest,
            counted=transaction.count(tables.asked),
            records=transaction.count(records[kind]),
            totals=transaction.totals(kind),
        )


def forget(store: NearlineStore, keys: Iterable[bytes]) -> int:
    """Remove all that is kept of users given by `layout.user_key`, in steps; returns of how many something was.

    Raises StateUnavailable.
    """
    left = iter(keys)
    forgotten = 0
    while some := list(islice(left, _PAGE)):
        forgotten += store.forget_keys(some)
    return forgotten


def clear(store: NearlineStore, expiry: Expiry, *, now: float) -> Cleared:
    """Remove what has expired, what cannot be decoded, and what kept subjects quiet until now (Unix seconds).

    Works in steps, so that other writers never wait for long. Raises StateUnavailable.
    """

    def is_old(transaction: NearlineTransaction, key: bytes) -> bool:
        interests = transaction.interests(key)
        return interests is not None and interests.generated_at < expiry.generated_before

    def is_kept(group_model_id: str) -> bool:
        return expiry.group_models is None or group_model_id in expiry.group_models

    def is_past_group(transaction: NearlineTransaction, key: bytes) -> bool:
        group = transaction.group(key)
        return group is not None and (group.generated_at < expiry.groups_before or not is_kept(group.group_model_id))

    def is_past_list(transaction: NearlineTransaction, key: bytes) -> bool:
        record = transaction.novel_categories(key)
        return record is not None and (
            not is_kept(record.group_model_id) or (not record.categories and record.generated_at < expiry.empty_before)
        )

    tables = store.tables
    queues = [_clear_queue(store, kind, expiry, now) for kind in Kind]
    return Cleared(
        records=_remove(store, tables.interests, is_old, NearlineTransaction.remove_interests),
        groups=_remove(store, tables.groups, is_past_group, NearlineTransaction.remove_group),
        lists=_remove(store, tables.lists, is_past_list, NearlineTransaction.remove_list),
        parked=sum(parked for parked, _, _ in queues),
        quiet=sum(quiet for _, quiet, _ in queues),
        counted=sum(counted for _, _, counted in queues),
    )


def _clear_queue(store: NearlineStore, kind: Kind, expiry: Expiry, now: float) -> tuple[int, int, int]:
    """Remove what is over in one queue; returns how many parked entries, quiet subjects and counts."""

    def is_given_up(transaction: NearlineTransaction, key: bytes) -> bool:
        queue = transaction.queue(kind)
        entry = queue.entry(key)
        if entry is None:
            # Removed meanwhile, or it cannot be decoded.
            return transaction.has(queue.tables.queue, key)
        return entry.parked and entry.not_before < expiry.parked_before

    def is_quiet_no_more(transaction: NearlineTransaction, key: bytes) -> bool:
        return 0 < transaction.queue(kind).quiet_until(key) <= now

    def is_long_ago(transaction: NearlineTransaction, key: bytes) -> bool:
        requests, latest = transaction.queue(kind).asked(key)
        return requests > 0 and latest < expiry.asked_before

    tables = store.queue(kind).tables
    return (
        _remove(store, tables.queue, is_given_up, lambda transaction, key: transaction.queue(kind).remove(key)),
        _remove(
            store, tables.quiet, is_quiet_no_more, lambda transaction, key: transaction.queue(kind).set_quiet(key, 0)
        ),
        _remove(
            store, tables.asked, is_long_ago, lambda transaction, key: transaction.queue(kind).set_asked(key, 0, 0)
        ),
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
        with store.tables.reading() as transaction:
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
    """Remove the rows of a table that are over, or whose record cannot be decoded; returns how many."""

    def judge(transaction: NearlineTransaction, key: bytes) -> bool | None:
        try:
            return is_over(transaction, key)
        except DecodeError:
            # Nobody can use it, and every request that meets it would be degraded.
            return None

    removed = 0
    start = b""
    while True:
        with store.tables.reading() as transaction:
            keys = transaction.keys_after(table, start, _PAGE)
            over = [key for key in keys if judge(transaction, key) is not False]
        if over:
            with store.tables.writing() as transaction:
                # Whoever was generated or queued again between the two is no longer over.
                for key in over:
                    verdict = judge(transaction, key)
                    if verdict is None:
                        _log.warning("unreadable record removed", key=repr(key))
                    if verdict is not False:
                        remove(transaction, key)
                        removed += 1
        if len(keys) < _PAGE:
            return removed
        start = keys[-1]
