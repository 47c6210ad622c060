"""The tables of one near-line queue, inside the LMDB environment that all processes of a host share.

    queue    key of the subject → NearlineEntry, one entry a subject
    ready    due (8 bytes, milliseconds) ‖ BLAKE2b-128 of the key → the key; entries to be tried, in order
    delayed  not_before ‖ hash → key; entries whose last attempt failed
    parked   not_before ‖ hash → key; entries that failed too often, in the order they were parked
    quiet    key → Unix seconds (8 bytes); nothing is to be had for the subject, which is not queued again before
    asked    key → requests so far, Unix seconds of the latest (8 bytes each); asked for too seldom to be queued

Every entry stands in exactly one of ready, delayed and parked.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TypeAlias

import lmdb

from serendipity.channel.nearline.priority import due
from serendipity.v1 import records_pb2

Table: TypeAlias = lmdb._Database
"""A table of the environment."""

TABLES_OF_QUEUE = 6

NUMBER = struct.Struct(">Q")
_ASKED = struct.Struct(">QQ")


class QueueTables:
    """The opened tables of one queue. prefix: of their names."""

    def __init__(self, env: lmdb.Environment, prefix: str) -> None:
        self.queue, self.ready, self.delayed, self.parked, self.quiet, self.asked = (
            env.open_db(f"{prefix}{name}".encode())
            for name in ("queue", "ready", "delayed", "parked", "quiet", "asked")
        )


class QueueTransaction:
    """The tables of one queue inside a transaction; entries move between the orders whenever they are put."""

    def __init__(self, tables: QueueTables, txn: lmdb.Transaction) -> None:
        self.tables = tables
        self._txn = txn

    def entry(self, key: bytes) -> records_pb2.NearlineEntry | None:
        """Read an entry."""
        value = self._txn.get(key, db=self.tables.queue)
        return None if value is None else records_pb2.NearlineEntry.FromString(bytes(value))

    def put(self, key: bytes, entry: records_pb2.NearlineEntry) -> None:
        """Write an entry into the queue and into the order it belongs to."""
        self.remove(key)
        self._txn.put(key, entry.SerializeToString(), db=self.tables.queue)
        order, place = self._place(key, entry)
        self._txn.put(place, key, db=order)

    def remove(self, key: bytes) -> bool:
        """Remove an entry; False if there is none."""
        before = self.entry(key)
        if before is None:
            return False
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
        """Read the first entries of an order."""
        return [entry for key in self.keys(order, most) if (entry := self.entry(key)) is not None]

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
        if value is None:
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


def _milliseconds(moment: float) -> int:
    return max(0, round(1_000 * moment))


def number(value: bytes | memoryview | None) -> int:
    """Read a stored number; 0 where there is none."""
    return 0 if value is None else int(NUMBER.unpack(value)[0])
