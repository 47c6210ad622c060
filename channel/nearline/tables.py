"""The tables of the near-line store, inside one LMDB environment shared by all processes of a host.

    queue      user → NearlineEntry, one entry a user
    ready      due (8 bytes, milliseconds) ‖ BLAKE2b-128 of the user's key → the key; entries to be tried, in order
    delayed    not_before ‖ hash → key; entries whose last attempt failed
    parked     not_before ‖ hash → key; entries that failed too often, in the order they were parked
    interests  user → InterestsRecord
    paths      user → InterestPathsRecord, of the same refresh as the interests
    quiet      user → Unix seconds (8 bytes); nothing is known of the user, who is not queued again before
    meta       name of a count → the count (8 bytes)

Every entry stands in exactly one of ready, delayed and parked. Whatever changes together changes in one transaction, so
a process that dies leaves all of it or nothing.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import TypeAlias

import lmdb

from serendipity.channel.nearline.priority import due
from serendipity.v1 import records_pb2

Table: TypeAlias = lmdb._Database
"""A table of the environment."""

_NUMBER = struct.Struct(">Q")


class NearlineTables:
    """The opened environment. Raises lmdb.Error, here and in all methods."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        # Defaults that matter here: lock=True (several processes write), sync=True and metasync=True (a transaction
        # that has ended is on disk).
        self.env = lmdb.open(str(path), map_size=map_bytes, max_dbs=8, max_readers=512, readahead=False)
        # Readers that were killed would otherwise pin old pages for ever.
        self.env.reader_check()
        self.queue = self.env.open_db(b"queue")
        self.ready = self.env.open_db(b"ready")
        self.delayed = self.env.open_db(b"delayed")
        self.parked = self.env.open_db(b"parked")
        self.interests = self.env.open_db(b"interests")
        self.paths = self.env.open_db(b"paths")
        self.quiet = self.env.open_db(b"quiet")
        self.meta = self.env.open_db(b"meta")


class NearlineTransaction:
    """The tables inside one transaction; entries move between the orders whenever they are put."""

    def __init__(self, tables: NearlineTables, txn: lmdb.Transaction) -> None:
        self.tables = tables
        self._txn = txn

    def has(self, table: Table, key: bytes) -> bool:
        """Tell whether a table holds a key."""
        return self._txn.get(key, db=table) is not None

    def interests(self, key: bytes) -> records_pb2.InterestsRecord | None:
        """Read a user's interests."""
        value = self._txn.get(key, db=self.tables.interests)
        return None if value is None else records_pb2.InterestsRecord.FromString(bytes(value))

    def paths(self, key: bytes) -> records_pb2.InterestPathsRecord | None:
        """Read how a user's interests were reached."""
        value = self._txn.get(key, db=self.tables.paths)
        return None if value is None else records_pb2.InterestPathsRecord.FromString(bytes(value))

    def keys_after(self, table: Table, start: bytes, most: int) -> list[bytes]:
        """Read up to `most` keys of a table that come after one, in their order; all come after the empty one."""
        keys: list[bytes] = []
        with self._txn.cursor(table) as cursor:
            found = cursor.set_range(start)
            if found and cursor.key() == start:
                found = cursor.next()
            while found and len(keys) < most:
                keys.append(bytes(cursor.key()))
                found = cursor.next()
        return keys

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

    def num_waiting(self) -> int:
        """Entries that are ready or delayed."""
        return self.count(self.tables.ready) + self.count(self.tables.delayed)

    def count(self, table: Table) -> int:
        """Entries of a table."""
        return int(self._txn.stat(table)["entries"])

    def first(self, order: Table, most: int) -> list[records_pb2.NearlineEntry]:
        """Read the first entries of an order."""
        return [entry for key in self.keys(order, most) if (entry := self.entry(key)) is not None]

    def last_ready(self) -> bytes | None:
        """Key of the user whose turn comes last; None where nobody is ready."""
        with self._txn.cursor(self.tables.ready) as cursor:
            return bytes(cursor.value()) if cursor.last() else None

    def keys(self, order: Table, most: int, until: float | None = None) -> list[bytes]:
        """Read keys of users in their order; until: those that stand at or before a moment (Unix seconds)."""
        keys: list[bytes] = []
        with self._txn.cursor(order) as cursor:
            for place, key in cursor:
                if len(keys) == most or (until is not None and _NUMBER.unpack_from(place)[0] > _milliseconds(until)):
                    break
                keys.append(bytes(key))
        return keys

    def put_records(
        self, key: bytes, interests: records_pb2.InterestsRecord, paths: records_pb2.InterestPathsRecord
    ) -> None:
        """Write a user's interests and how they were reached."""
        self._txn.put(key, interests.SerializeToString(), db=self.tables.interests)
        self._txn.put(key, paths.SerializeToString(), db=self.tables.paths)

    def remove_records(self, key: bytes) -> bool:
        """Remove a user's interests and paths; False if there are none."""
        self._txn.delete(key, db=self.tables.paths)
        return bool(self._txn.delete(key, db=self.tables.interests))

    def quiet_until(self, key: bytes) -> int:
        """Moment (Unix seconds) before which the user is not queued; 0 for none."""
        return _number(self._txn.get(key, db=self.tables.quiet))

    def set_quiet(self, key: bytes, until: int) -> None:
        """Keep the user out of the queue until a moment (Unix seconds); 0 lets the user in again."""
        if until:
            self._txn.put(key, _NUMBER.pack(until), db=self.tables.quiet)
        else:
            self._txn.delete(key, db=self.tables.quiet)

    def add(self, count: str, more: int = 1) -> None:
        """Raise a count."""
        if more:
            key = count.encode()
            before = _number(self._txn.get(key, db=self.tables.meta))
            self._txn.put(key, _NUMBER.pack(before + more), db=self.tables.meta)

    def totals(self) -> dict[str, int]:
        """Read all counts, by name."""
        with self._txn.cursor(self.tables.meta) as cursor:
            return {bytes(name).decode(): _number(value) for name, value in cursor}

    def _place(self, key: bytes, entry: records_pb2.NearlineEntry) -> tuple[Table, bytes]:
        """Tell where an entry stands: the order, and its key there. It follows from the entry alone."""
        if entry.parked:
            order, moment = self.tables.parked, float(entry.not_before)
        elif entry.not_before:
            order, moment = self.tables.delayed, float(entry.not_before)
        else:
            order, moment = self.tables.ready, due(entry)
        # User keys take up to LMDB's 511 bytes, so that none would fit behind the moment.
        return order, _NUMBER.pack(_milliseconds(moment)) + hashlib.blake2b(key, digest_size=16).digest()


def _milliseconds(moment: float) -> int:
    return max(0, round(1_000 * moment))


def _number(value: bytes | memoryview | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])
