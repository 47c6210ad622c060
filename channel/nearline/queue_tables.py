"""The tables of one near-line queue, inside the LMDB environment that all processes of a host share.

    queue    key of the subject → NearlineEntry, one entry a subject
    ready    due (8 bytes, milliseconds) ‖ BLAKE2b-128 of the key → the key; entries to be tried, in order
    delayed  not_before ‖ hash → key; entries whose last attempt failed
    parked   not_before ‖ hash → key; entries that failed too often, in the order they were parked
    quiet    key → Unix seconds (8 bytes); nothing is to be had for the subject, which is not queued again before
    asked    key → requests so far, Unix seconds of the latest (8 bytes each); asked for too seldom to be queued

Every entry stands in exactly one of ready, delayed and parked. One that cannot be decoded counts as absent: it is not
taken, is overwritten when its subject is wanted again, and otherwise removed by housekeeping.
"""

from __future__ import annotations

import hashlib
import struct

import lmdb
import structlog
from google.protobuf.message import DecodeError

from serendipity.channel.nearline.priority import due
from serendipity.channel.state.environment import Environment, Table
from serendipity.v1 import records_pb2

TABLES_OF_QUEUE = 6

NUMBER = struct.Struct(">Q")
_ASKED = struct.Struct(">QQ")

_log = structlog.stdlib.get_logger(__name__)


class QueueTables:
    """The opened tables of one queue. prefix: of their names."""

    def __init__(self, env: Environment, prefix: str) -> None:
        self.queue, self.ready, self.delayed, self.parked, self.quiet, self.asked = (
            env.table(f"{prefix}{name}") for name in ("queue", "ready", "delayed", "parked", "quiet", "asked")
        )


class QueueTransaction:
    """The tables of one queue inside a transaction; entries move between the orders whenever they are put."""

    def __init__(self, tables: QueueTables, txn: lmdb.Transaction) -> None:
        self.tables = tables
        self._txn = txn

    def entry(self, key: bytes) -> records_pb2.NearlineEntry | None:
        """Read an entry; None also where it cannot be decoded."""
        value = self._txn.get(key, db=self.tables.queue)
        return None if value is None else _decoded(value)

    def put(self, key: bytes, entry: records_pb2.NearlineEntry) -> None:
        """Write an entry into the queue and into the order it belongs to."""
        self.remove(key)
        self._txn.put(key, entry.SerializeToString(), db=self.tables.queue)
        order, place = self._place(key, entry)
        self._txn.put(place, key, db=order)

    def remove(self, key: bytes) -> bool:
        """Remove an entry; False if there is none."""
        value = self._txn.get(key, db=self.tables.queue)
        if value is None:
            return False
        before = _decoded(value)
        if before is None:
            _log.warning("unreadable entry removed", key=repr(key))
            self._remove_places(key)
        else:
            order, place = self._place(key, before)
            self._txn.delete(place, db=order)
        self._txn.delete(key, db=self.tables.queue)
        return True

    def count(self, table: Table) -> int:
        """Rows of a table."""
        return int(self._txn.stat(table)["entries"])

    def num_waiting(self) -> int:
        """Entries that are ready or delayed."""
        return self.count(self.tables.ready) + self.count(self.tables.delayed)

    def first(self, order: Table, most: int) -> list[records_pb2.NearlineEntry]:
        """Read the first entries of an order; those that cannot be decoded are passed over."""
        entries: list[records_pb2.NearlineEntry] = []
        with self._txn.cursor(order) as cursor:
            for _, key in cursor:
                if len(entries) == most:
                    break
                entry = self.entry(bytes(key))
                if entry is not None:
                    entries.append(entry)
        return entries

    def last_ready(self) -> bytes | None:
        """Key of the entry whose turn comes last; None where none is ready."""
        with self._txn.cursor(self.tables.ready) as cursor:
            return bytes(cursor.value()) if cursor.last() else None

    def keys(self, order: Table, most: int, until: float | None = None) -> list[bytes]:
        """Read keys in their order; until: those that stand at or before a moment (Unix seconds)."""
        keys: list[bytes] = []
        with self._txn.cursor(order) as cursor:
            for place, key in cursor:
                if len(keys) == most or (until is not None and NUMBER.unpack_from(place)[0] > _milliseconds(until)):
                    break
                keys.append(bytes(key))
        return keys

    def quiet_until(self, key: bytes) -> int:
        """Moment (Unix seconds) before which the subject is not queued; 0 for none."""
        return number(self._txn.get(key, db=self.tables.quiet))

    def set_quiet(self, key: bytes, until: int) -> None:
        """Keep the subject out of the queue until a moment (Unix seconds); 0 lets it in again."""
        if until:
            self._txn.put(key, NUMBER.pack(until), db=self.tables.quiet)
        else:
            self._txn.delete(key, db=self.tables.quiet)

    def asked(self, key: bytes) -> tuple[int, int]:
        """Requests for a subject that is not queued yet, and when the latest was (Unix seconds); 0, 0 for none."""
        value = self._txn.get(key, db=self.tables.asked)
        if value is None or len(value) != _ASKED.size:
            return 0, 0
        requests, latest = _ASKED.unpack(value)
        return int(requests), int(latest)

    def set_asked(self, key: bytes, requests: int, now: int) -> None:
        """Keep the number of requests for a subject; 0 forgets it."""
        if requests:
            self._txn.put(key, _ASKED.pack(requests, now), db=self.tables.asked)
        else:
            self._txn.delete(key, db=self.tables.asked)

    def forget_asked(self) -> None:
        """Let the counting of all requests begin anew."""
        self._txn.drop(self.tables.asked, delete=False)

    def _remove_places(self, key: bytes) -> None:
        """Take a subject out of the orders where nothing tells its place: reads all of them, 0.3 s per million."""
        for order in (self.tables.ready, self.tables.delayed, self.tables.parked):
            with self._txn.cursor(order) as cursor:
                places = [bytes(place) for place, subject in cursor if subject == key]
            for place in places:
                self._txn.delete(place, db=order)

    def _place(self, key: bytes, entry: records_pb2.NearlineEntry) -> tuple[Table, bytes]:
        """Tell where an entry stands: the order, and its key there. It follows from the entry alone."""
        if entry.parked:
            order, moment = self.tables.parked, float(entry.not_before)
        elif entry.not_before:
            order, moment = self.tables.delayed, float(entry.not_before)
        else:
            order, moment = self.tables.ready, due(entry)
        # Keys take up to LMDB's 511 bytes, so that none would fit behind the moment.
        return order, NUMBER.pack(_milliseconds(moment)) + hashlib.blake2b(key, digest_size=16).digest()


def _decoded(value: bytes | memoryview) -> records_pb2.NearlineEntry | None:
    try:
        return records_pb2.NearlineEntry.FromString(bytes(value))
    except DecodeError:
        return None


def _milliseconds(moment: float) -> int:
    return max(0, round(1_000 * moment))


def number(value: bytes | memoryview | None) -> int:
    """Read a stored number; 0 where there is none, or what is stored is none."""
    return int(NUMBER.unpack(value)[0]) if value is not None and len(value) == NUMBER.size else 0
