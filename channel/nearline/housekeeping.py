"""Housekeeping of the near-line store: what is counted, and what is removed once it has expired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lmdb
import structlog
from google.protobuf.message import DecodeError

from serendipity.channel.nearline.durable_queue import DELAYED, READY
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.state.records import Records
from serendipity.v1 import records_pb2

EMPTY_LIST_SECONDS = 86_400
"""For which it is remembered that nothing reached a list's threshold; then it may be asked for again."""

_PAGE = 2_000
"""Rows looked at, or removed, per transaction: some milliseconds, so that no other writer waits for long."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Census:
    """What the store holds of one kind.

    ready, delayed: entries to be tried now, and later since they failed; next_since: when the entry that is tried next
    was queued, Unix seconds, 0 for none; records: users with interests, or lists; totals: name → what has happened
    since the store was made.
    """

    ready: int
    delayed: int
    next_since: int
    records: int
    totals: Mapping[str, int]


@dataclass(frozen=True)
class Cleared:
    """What was removed.

    interests: of users; lists: of group models no longer kept, or empty for long enough; entries: failed for
    long; erased: users.
    """

    interests: int = 0
    lists: int = 0
    entries: int = 0
    erased: int = 0


def census(store: NearlineStore, kind: Kind = Kind.INTERESTS) -> Census:
    """Count what the store holds of a kind, without reading it through. Raises StateUnavailable."""
    queue = store.queue(kind)
    with store.env.reading() as txn:
        sizes = {order: queue.entries.size(txn, order) for order in (READY, DELAYED)}
        next_since = max((entry.enqueued_at for entry in queue.entries.first(txn, READY, 1)), default=0)
        records = store.records[kind][0].count(txn)
    return Census(**sizes, next_since=next_since, records=records, totals=queue.totals())


def forget(store: NearlineStore, keys: Sequence[bytes]) -> int:
    """Remove all that is kept of users given by `layout.user_key`, in steps; returns of how many something was.

    Raises StateUnavailable.
    """
    return sum(store.forget_keys(keys[start : start + _PAGE]) for start in range(0, len(keys), _PAGE))


def clear(
    store: NearlineStore, *, now: float, moment: float, hard_age: float, group_models: Collection[str] | None = None
) -> Cleared:
    """Remove what has expired, and what cannot be decoded, in steps, so that other writers never wait for long.

    now: of the wall clock, Unix seconds; moment: that requests are answered as of; hard_age: seconds that interests
    serve, and that entries which fail are kept; group_models: those of the snapshots on disk, whose lists stay,
    None where that is not known and all stay. Raises StateUnavailable.
    """

    def is_past(record: records_pb2.NovelCategoriesRecord) -> bool:
        is_foreign = group_models is not None and record.group_model_id not in group_models
        return is_foreign or (not record.categories and record.generated_at < moment - EMPTY_LIST_SECONDS)

    def is_given_up(entry: records_pb2.NearlineEntry) -> bool:
        return entry.not_before > 0 and entry.enqueued_at < now - hard_age

    entries = [_remove(store, [store.queue(kind).entries], is_given_up) for kind in Kind]
    return Cleared(
        interests=_remove(store, store.records[Kind.INTERESTS], lambda one: one.generated_at < moment - hard_age),
        lists=_remove(store, store.records[Kind.LISTS], is_past),
        entries=sum(entries),
    )


def cause_name(cause: records_pb2.RefreshCause) -> str:
    """Name a cause as metrics and operators do: missing, too_old …; by its number where another version queued it."""
    known = records_pb2.RefreshCause.DESCRIPTOR.values_by_number.get(cause)
    return known.name.removeprefix("REFRESH_CAUSE_").lower() if known else f"cause {cause}"


def _remove(store: NearlineStore, tables: Sequence[Records[Any]], is_over: Callable[[Any], bool]) -> int:
    """Remove from all tables the keys whose record in the first is over, or cannot be decoded; returns how many."""

    def judge(txn: lmdb.Transaction, key: bytes) -> bool:
        try:
            record = tables[0].get(txn, key)
        except DecodeError:
            # Nobody can use it, and every request that meets it would be degraded.
            return True
        return record is not None and is_over(record)

    removed = 0
    start = b""
    while True:
        with store.env.reading() as txn:
            keys = tables[0].keys_after(txn, start, _PAGE)
            over = [key for key in keys if judge(txn, key)]
        if over:
            with store.env.writing() as txn:
                # Whoever was generated or queued again between the two is no longer over.
                for key in [key for key in over if judge(txn, key)]:
                    if tables[0].get_readable(txn, key) is None:
                        _log.warning("unreadable record removed", key=repr(key))
                    for table in tables:
                        table.delete(txn, key)
                    removed += 1
        if len(keys) < _PAGE:
            return removed
        start = keys[-1]
