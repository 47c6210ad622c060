"""The tables of the feedback store, inside one LMDB environment shared by all processes of a host.

    log    sequence number (8 bytes, big-endian) → FeedbackLogRecord, append-only
    seen   BLAKE2b-128 of the event id → sequence number of its log record
    users  user id → UserFeedbackRecord, what novelty and "already served" are judged by, and what interests are
           generated from
    shown  BLAKE2b-128 of the user id ‖ number (8 bytes, big-endian), smaller ones later → UserFeedbackRecord: exposures
           before those in `users`, a page of them, so that an event of a heavy user does not write all of them anew
    meta   b"next_sequence" → the next sequence number (the log may have expired down to nothing); b"visited" → the user
           up to whom the present round of expiry has come

Whatever changes together changes in one transaction, so a process that dies leaves all of it or nothing.
"""

from __future__ import annotations

import hashlib
import math
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

EXPOSURE_PAGE = 200
"""Exposures in one row: up to twice as many stand with the user's other events, and are written with each, 10 KB."""

DISMISSAL_WINDOW = 200
"""Items kept per user that the user did not want."""

SIGNAL_WINDOW = 50
"""Searches kept per user, and as many other signals (views, favourites …)."""

_Timed = TypeVar("_Timed", channel_pb2.FeedbackEvent, records_pb2.Search)

_NEXT_SEQUENCE = b"next_sequence"
_VISITED = b"visited"
_FIRST_PAGE = 1 << 63
_STEP = 1_000
"""Rows looked at, or removed, in one transaction: some milliseconds, so that nobody waits long for the disk."""


class FeedbackTables:
    """The opened environment. path, map_bytes, errors: as of Environment."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        self.env = Environment(path, map_bytes, max_tables=5)
        self.log = Records(self.env, "log", records_pb2.FeedbackLogRecord)
        self.users = Records(self.env, "users", records_pb2.UserFeedbackRecord)
        self.shown = Records(self.env, "shown", records_pb2.UserFeedbackRecord)
        self.seen, self.meta = map(self.env.table, ("seen", "meta"))

    def user(self, txn: lmdb.Transaction, key: bytes) -> records_pb2.UserFeedbackRecord | None:
        """Read all that is kept of a user."""
        record = self.users.get(txn, key)
        if record is not None:
            for page in self.pages(txn, key):
                self._append(txn, page, record)
            del record.exposures[EXPOSURE_WINDOW:]
        return record

    def pages(self, txn: lmdb.Transaction, key: bytes) -> list[bytes]:
        """List the keys of a user's pages of earlier exposures, the latest first."""
        user, found = _digest(key), []
        with txn.cursor(self.shown.table) as cursor:
            if cursor.set_range(user):
                for page in map(bytes, cursor.iternext(keys=True, values=False)):
                    if not page.startswith(user):
                        break
                    found.append(page)
        return found

    def put_user(self, txn: lmdb.Transaction, key: bytes, record: records_pb2.UserFeedbackRecord) -> None:
        """Write a user's events; of exposures, those that are not on pages yet."""
        if len(record.exposures) >= 2 * EXPOSURE_PAGE:
            pages = self.pages(txn, key)
            number = NUMBER.unpack(pages[0][-NUMBER.size :])[0] if pages else _FIRST_PAGE
            while len(record.exposures) >= 2 * EXPOSURE_PAGE:
                number -= 1
                pages.insert(0, _digest(key) + NUMBER.pack(number))
                page = records_pb2.UserFeedbackRecord(exposures=record.exposures[-EXPOSURE_PAGE:])
                self.shown.put(txn, pages[0], page)
                del record.exposures[-EXPOSURE_PAGE:]
            for page_key in pages[EXPOSURE_WINDOW // EXPOSURE_PAGE - 1 :]:
                self.shown.delete(txn, page_key)
        self.users.put(txn, key, record)

    def delete_user(self, txn: lmdb.Transaction, key: bytes) -> bool:
        """Remove all that is kept of a user but the log; False if there is nothing."""
        for page in self.pages(txn, key):
            self.shown.delete(txn, page)
        return self.users.delete(txn, key)

    def rejoin(self, txn: lmdb.Transaction, key: bytes, record: records_pb2.UserFeedbackRecord) -> None:
        """Move a user's earlier exposures from their pages into the record, which is to be written then."""
        for page in self.pages(txn, key):
            self._append(txn, page, record)
            self.shown.delete(txn, page)

    def _append(self, txn: lmdb.Transaction, page: bytes, record: records_pb2.UserFeedbackRecord) -> None:
        # Messages of one kind, one behind the other, are one with the repeated fields of both.
        record.MergeFromString(bytes(txn.get(page, db=self.shown.table) or b""))

    def last_recorded(self) -> float | None:
        """When the latest event of the log was recorded, Unix seconds; None of an empty one."""
        with self.env.reading() as txn, txn.cursor(self.log.table) as cursor:
            if not cursor.last():
                return None
            record = records_pb2.FeedbackLogRecord.FromString(bytes(cursor.value()))
            return record.recorded_at.ToMilliseconds() / 1e3

    def expire_log(self, before: float, now: float) -> int:
        """Remove the log records recorded before a time, and their ids, in steps.

        One recorded after `now`, by a clock that was ahead, is as old as those behind it: it goes when they go.
        """
        end, start = b"", b""
        while True:
            with self.env.reading() as txn:
                rows = list(islice(self.log.rows_from(txn, start), _STEP))
            passed = list(takewhile(lambda row: not before <= row[1].recorded_at.seconds <= now, rows))
            end = max((key for key, record in passed if record.recorded_at.seconds < before), default=end)
            if len(passed) < _STEP:
                break
            start = _after(passed[-1][0])
        removed = 0
        while True:
            with self.env.writing() as txn:
                stale = [row for row in islice(self.log.rows_from(txn), _STEP) if row[0] <= end]
                for key, record in stale:
                    txn.delete(_digest(record.event.event_id.encode()), db=self.seen)
                    self.log.delete(txn, key)
            removed += len(stale)
            if len(stale) < _STEP:
                return removed

    def expire_users(self, before: float, now: float, rounds: float) -> int:
        """Visit 1 / `rounds` of the users, at least 1,000, in steps, and remove those without an event since a time.

        So many calls visit everybody, however many there are. What lies after `now`, from a clock that was ahead, is
        brought down to it. Returns how many were removed.
        """
        with self.env.reading() as txn:
            left = max(_STEP, math.ceil(self.users.count(txn) / rounds))
            start = bytes(txn.get(_VISITED, db=self.meta) or b"")
        removed = 0
        while left > 0:
            most = min(left, _STEP)
            with self.env.reading() as txn:
                keys = self.users.keys_after(txn, start, most + 1)
                due = [key for key in keys[:most] if not before <= self._newest(txn, key) <= now]
            is_round_over = len(keys) <= most
            left = 0 if is_round_over else left - most
            start = b"" if is_round_over else keys[most - 1]
            with self.env.writing() as txn:
                for key in due:
                    # Asked again: an event may have come since.
                    if self._newest(txn, key) < before:
                        removed += self.delete_user(txn, key)
                    elif self._newest(txn, key) > now and (record := self.users.get(txn, key)) is not None:
                        self.rejoin(txn, key, record)
                        _bring_down(record, int(now))
                        self.put_user(txn, key, record)
                txn.put(_VISITED, start, db=self.meta)
        return removed

    def _newest(self, txn: lmdb.Transaction, key: bytes) -> float:
        """Time of a user's latest event, Unix seconds; infinite where the record cannot be decoded, or has gone."""
        record = self.users.get_readable(txn, key)
        if record is None:
            return math.inf
        events = (record.clicks, record.exposures, record.signals, record.dismissals)
        times = [kept[0].time.seconds for kept in events if kept]
        return max([*times, *(search.time for search in record.searches[:1])], default=0)


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
        if not self._txn.put(_digest(event.event_id.encode()), key, overwrite=False, db=self._tables.seen):
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
            self._tables.put_user(self._txn, key, record)
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
        if event.type == channel_pb2.EVENT_TYPE_EXPOSURE:
            shown = channel_pb2.FeedbackEvent(item_id=event.item_id, time=event.time)
            if record.exposures and _moment(shown) < _moment(record.exposures[-1]):
                self._tables.rejoin(self._txn, key, record)
            _insert(record.exposures, shown, EXPOSURE_WINDOW, self._now)
        if is_click:
            names = record.click_categories
            # Records written before categories were kept have fewer names than clicks.
            names.extend([""] * (len(record.clicks) - len(names)))
            position = _insert(record.clicks, kept, CLICK_WINDOW, self._now)
            names.insert(position, categories.get(event.item_id, ""))
            del names[CLICK_WINDOW:]
        if event.type == channel_pb2.EVENT_TYPE_NOT_INTERESTED:
            _insert(record.dismissals, kept, DISMISSAL_WINDOW, self._now)
        elif not is_click and event.type != channel_pb2.EVENT_TYPE_EXPOSURE:
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


def _bring_down(record: records_pb2.UserFeedbackRecord, now: int) -> None:
    """Give events of the future the time now, Unix seconds; their order stays."""
    for event in (*record.clicks, *record.exposures, *record.signals, *record.dismissals):
        if event.time.seconds > now:
            event.time.FromSeconds(now)
    for search in record.searches:
        search.time = min(search.time, now)


def _after(key: bytes) -> bytes:
    """The least key behind another."""
    return key + b"\x00"


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()
