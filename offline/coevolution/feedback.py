"""Clicks that the service recorded: the log table of its feedback store, read beside the running service.

The store is an LMDB environment, `<state>/feedback`, in which table `log` maps a sequence number (8 bytes, big-endian)
to a FeedbackLogRecord.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import numpy as np
from google.protobuf.message import DecodeError

from serendipity.event_times import EARLIEST_TIME
from serendipity.layout import user_key
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.coevolution.increment import Increment
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.schema import EVENT_TYPES
from serendipity.v1 import channel_pb2, records_pb2

_LOG = b"log"
_PAGE = 1_000

_Row = tuple[str, int, int]
"""User id, item row, Unix seconds."""


@dataclass(frozen=True)
class Feedback:
    """clicks, shown: what was clicked and what was exposed, by a catalogue's numbers; skipped: rows of the log that are
    neither, by reason.

    Reasons: corrupt (not a record), incomplete (no user, item or time), erased, other event, unknown item.
    """

    clicks: Increment
    shown: Increment
    skipped: dict[str, int] = field(default_factory=dict)


def read_feedback(store: Path, catalogue: Catalogue, click_types: Collection[str], erasures: Erasures) -> Feedback:
    """Read clicks and exposures of a feedback store. click_types: names of the events that count as clicks
    (LogsSummary); erasures: users of whom nothing is read.

    A row that cannot be read is counted and skipped: one broken row must not stop the daily run. Raises LogsError when
    there is no store or it cannot be opened.
    """
    clicked = {EVENT_TYPES[name] for name in click_types}
    rows = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    skipped: Counter[str] = Counter()
    clicks: list[_Row] = []
    shown: list[_Row] = []
    for value in _values(store):
        event = _event(value)
        if event is None:
            skipped["corrupt"] += 1
        elif event.type not in clicked and event.type != channel_pb2.EVENT_TYPE_EXPOSURE:
            skipped["other event"] += 1
        elif not event.user_id or not event.item_id or event.time.seconds < EARLIEST_TIME:
            skipped["incomplete"] += 1
        elif user_key(event.user_id) in erasures.keys:
            skipped["erased"] += 1
        elif event.item_id not in rows or catalogue.item_categories[rows[event.item_id]] == NO_CATEGORY:
            skipped["unknown item"] += 1
        else:
            kept = clicks if event.type in clicked else shown
            kept.append((event.user_id, rows[event.item_id], event.time.seconds))
    return Feedback(_increment(clicks, catalogue), _increment(shown, catalogue), dict(skipped))


def _increment(rows: list[_Row], catalogue: Catalogue) -> Increment:
    items = np.array([row for _, row, _ in rows], np.int64)
    categories = catalogue.item_categories[items].astype(np.int32)
    times = np.array([time for _, _, time in rows], np.int64)
    return Increment([user_id for user_id, _, _ in rows], items + 1, categories, times)


def _event(value: bytes) -> channel_pb2.FeedbackEvent | None:
    try:
        return records_pb2.FeedbackLogRecord.FromString(value).event
    except DecodeError:
        return None


def _values(store: Path) -> Iterator[bytes]:
    """Iterate the log's values, a page a transaction: a long one would keep the service from reusing pages."""
    try:
        with lmdb.open(str(store), readonly=True, create=False, max_dbs=4) as environment:
            log = environment.open_db(_LOG, create=False)
            key = b""
            while True:
                with environment.begin(db=log) as transaction, transaction.cursor() as cursor:
                    found = cursor.set_range(key)
                    page: list[bytes] = []
                    while found and len(page) < _PAGE:
                        page.append(bytes(cursor.value()))
                        # The next page begins just behind the last key of this one.
                        key = bytes(cursor.key()) + b"\x00"
                        found = cursor.next()
                if not page:
                    return
                yield from page
    except lmdb.Error as error:
        raise LogsError(f"{store}: cannot be read ({error}); expected a feedback store") from error
