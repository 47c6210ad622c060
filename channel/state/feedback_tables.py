"""The tables of the feedback store, inside one LMDB environment shared by all processes of a host.

    log    sequence number (8 bytes, big-endian) → FeedbackLogRecord, append-only
    seen   BLAKE2b-128 of the event id → sequence number of its log record
    users  user id → UserFeedbackRecord, what novelty and "already served" are judged by, and what interests are
           generated from
    meta   b"next_sequence" → the next sequence number (the log may have expired down to nothing)

Whatever changes together changes in one transaction, so a process that dies leaves all of it or nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, MutableSequence
from itertools import islice, takewhile
from pathlib import Path
from typing import TypeVar

import lmdb

from serendipity.channel.state.environment import Environment
from serendipity.channel.state.records import NUMBER, Records
from serendipity.layout import user_key
from serendipity.novelty import CLICK_WINDOW
from serendipity.v1 import channel_pb2, records_pb2

EXPOSURE_WINDOW = 2_000
"""Exposures kept per user."""

DISMISSAL_WINDOW = 200
"""Items kept per user that the user did not want."""

SIGNAL_WINDOW = 50
"""Searches kept per user, and as many other signals (views, favourites …)."""

_Timed = TypeVar("_Timed", channel_pb2.FeedbackEvent, records_pb2.Search)

_NEXT_SEQUENCE = b"next_sequence"


class FeedbackTables:
    """The opened environment. path, map_bytes, errors: as of Environment."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        self.env = Environment(path, map_bytes, max_tables=4)
        self.log = Records(self.env, "log", records_pb2.FeedbackLogRecord)
        self.users = Records(self.env, "users", records_pb2.UserFeedbackRecord)
        self.seen, self.meta = map(self.env.table, ("seen", "meta"))

    def expire_log(self, before: float, limit: int) -> int:
        """Remove up to `limit` of the oldest log records recorded before a time, and their ids."""
        with self.env.writing() as txn:
            oldest = islice(self.log.rows_from(txn), limit)
            stale = list(takewhile(lambda row: row[1].recorded_at.seconds < before, oldest))
            for key, record in stale:
                txn.delete(_event_key(record.event.event_id), db=self.seen)
                self.log.delete(txn, key)
        return len(stale)

    def expire_users(self, before: float, start: bytes, limit: int) -> tuple[int, bytes]:
        """Visit up to `limit` users from a key on and remove those without an event since `before`.

        Returns how many were removed and the key to go on from, empty at the end.
        """
        with self.env.writing() as txn:
            visited = list(islice(self.users.rows_from(txn, start), limit + 1))
            stale = [key for key, record in visited[:limit] if _newest(record) < before]
            for key in stale:
                self.users.delete(txn, key)
        return len(stale), visited[limit][0] if len(visited) > limit else b""


class FeedbackTransaction:
    """Events entering all tables in one write transaction; a user's record is read and written once.

    now: Unix seconds, becomes recorded_at. `finish` must be called before the transaction ends.
    """

    def __init__(self, tables: FeedbackTables, txn: lmdb.Transaction, now: float) -> None:
        self._tables = tables
        self._txn = txn
        self._now = now
        self._users: dict[bytes, records_pb2.UserFeedbackRecord] = {}
        found = txn.get(_NEXT_SEQUENCE, db=tables.meta)
        self._sequence = int(NUMBER.unpack(found)[0]) if found else 0

    def add(
        self, event: channel_pb2.FeedbackEvent, click_types: Collection[int], categories: Mapping[str, str]
    ) -> bool:
        """Add an event; False if its id is known already. categories: item id → name of its top-level category."""
        key = NUMBER.pack(self._sequence)
        if not self._txn.put(_event_key(event.event_id), key, overwrite=False, db=self._tables.seen):
            return False
        record = records_pb2.FeedbackLogRecord(event=event)
        record.recorded_at.FromNanoseconds(int(self._now * 1e9))
        self._txn.put(key, record.SerializeToString(), append=True, db=self._tables.log.table)
        self._sequence += 1
        self._remember(event, click_types, categories)
        return True

    def finish(self) -> None:
        """Write the users' records and the next sequence number."""
        for key, record in self._users.items():
            self._tables.users.put(self._txn, key, record)
        self._txn.put(_NEXT_SEQUENCE, NUMBER.pack(self._sequence), db=self._tables.meta)

    def _remember(
        self, event: channel_pb2.FeedbackEvent, click_types: Collection[int], categories: Mapping[str, str]
    ) -> None:
        key = user_key(event.user_id)
        record = self._users.get(key)
        if record is None:
            record = self._tables.users.get(self._txn, key) or records_pb2.UserFeedbackRecord()
            self._users[key] = record
        if event.type == channel_pb2.EVENT_TYPE_SEARCH:
            search = records_pb2.Search(query=event.query, time=event.time.seconds)
            _insert(record.searches, search, SIGNAL_WINDOW, self._now)
            return
        is_click = event.type in click_types
        # Without the user, who is the key, and the recall_id, which is in the log: every request reads this record.
        kept = channel_pb2.FeedbackEvent(
            event_id=event.event_id, item_id=event.item_id, type=event.type, time=event.time
        )
        if is_click:
            names = record.click_categories
            # Records written before categories were kept have fewer names than clicks.
            names.extend([""] * (len(record.clicks) - len(names)))
            position = _insert(record.clicks, kept, CLICK_WINDOW, self._now)
            names.insert(position, categories.get(event.item_id, ""))
            del names[CLICK_WINDOW:]
        if event.type == channel_pb2.EVENT_TYPE_EXPOSURE:
            _insert(record.exposures, kept, EXPOSURE_WINDOW, self._now)
        elif event.type == channel_pb2.EVENT_TYPE_NOT_INTERESTED:
            _insert(record.dismissals, kept, DISMISSAL_WINDOW, self._now)
        elif not is_click:
            _insert(record.signals, kept, SIGNAL_WINDOW, self._now)


def _insert(events: MutableSequence[_Timed], event: _Timed, window: int, now: float) -> int:
    """Insert keeping newest first; of the same time, the one recorded later comes first. Returns its position.

    now: Unix seconds. What lies after it was stamped by a clock that was ahead, and would push this event out: it is
    brought down to the latest time that can be.
    """
    ahead = 0
    while ahead < len(events) and _moment(events[ahead]) > now * 1e9:
        ahead += 1
    latest = event if ahead == len(events) or _moment(event) >= _moment(events[ahead]) else events[ahead]
    for kept in events[:ahead]:
        kept.ClearField("time")
        kept.MergeFrom(type(kept)(time=latest.time))
    position = 0
    while position < len(events) and _moment(events[position]) > _moment(event):
        position += 1
    if position < window:
        events.insert(position, event)
        del events[window:]
    return position


def _moment(event: channel_pb2.FeedbackEvent | records_pb2.Search) -> int:
    """Nanoseconds since 1970."""
    return event.time * 10**9 if isinstance(event, records_pb2.Search) else event.time.ToNanoseconds()


def _newest(record: records_pb2.UserFeedbackRecord) -> int:
    """Time of a user's latest event, Unix seconds; 0 without any."""
    events = (record.clicks, record.exposures, record.signals, record.dismissals)
    times = [kept[0].time.seconds for kept in events if kept]
    return max([*times, *(search.time for search in record.searches[:1])], default=0)


def _event_key(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()
