"""The near-line store's LMDB environment, shared by all processes of a host: a queue for each kind, and the records.

    queues         see queue_tables; those of interests have no prefix, those of groups group_, those of lists list_
    interests      user → InterestsRecord
    paths          user → InterestPathsRecord, of the same refresh as the interests
    groups         user → UserGroupRecord
    lists          novel-category key → NovelCategoriesRecord
    lists_by_age   generated_at (8 bytes) ‖ BLAKE2b-128 of the key → the key
    meta           name of a count, with the queue's prefix → the count (8 bytes)

Whatever changes together changes in one transaction, so a process that dies leaves all of it or nothing. Environments
written before groups and lists were kept get their tables when they are opened.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import lmdb
from google.protobuf.message import DecodeError

from serendipity.channel.nearline.queue_tables import (
    NUMBER,
    TABLES_OF_QUEUE,
    QueueTables,
    QueueTransaction,
    number,
)
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.state.environment import Environment, Table
from serendipity.v1 import records_pb2

_PREFIXES = {Kind.INTERESTS: "", Kind.GROUPS: "group_", Kind.LISTS: "list_"}
_EVICTED = "evicted"

Record: TypeAlias = (
    records_pb2.InterestsRecord
    | records_pb2.InterestPathsRecord
    | records_pb2.UserGroupRecord
    | records_pb2.NovelCategoriesRecord
)
"""What is generated near-line."""


class NearlineTables:
    """The opened environment.

    path, map_bytes, errors: as of Environment; max_lists: novel-category lists kept at most, the oldest go first.
    """

    def __init__(self, path: Path, map_bytes: int, max_lists: int) -> None:
        self.max_lists = max_lists
        self.env = Environment(path, map_bytes, max_tables=len(Kind) * TABLES_OF_QUEUE + 6)
        self.queues = {kind: QueueTables(self.env, prefix) for kind, prefix in _PREFIXES.items()}
        self.interests, self.paths, self.groups, self.lists, self.lists_by_age, self.meta = map(
            self.env.table, ("interests", "paths", "groups", "lists", "lists_by_age", "meta")
        )

    @contextlib.contextmanager
    def reading(self) -> Iterator[NearlineTransaction]:
        """See the tables as of one moment."""
        with self.env.reading() as txn:
            yield NearlineTransaction(self, txn)

    @contextlib.contextmanager
    def writing(self) -> Iterator[NearlineTransaction]:
        """Change the tables in one transaction; other writers of the host wait."""
        with self.env.writing() as txn:
            yield NearlineTransaction(self, txn)


class NearlineTransaction:
    """The records and counts inside one transaction, and the queues beside them.

    Records that cannot be decoded raise DecodeError when they are read; they are overwritten and removed like others.
    """

    def __init__(self, tables: NearlineTables, txn: lmdb.Transaction) -> None:
        self.tables = tables
        self._txn = txn

    def queue(self, kind: Kind) -> QueueTransaction:
        """The queue of one kind."""
        return QueueTransaction(self.tables.queues[kind], self._txn)

    def has(self, table: Table, key: bytes) -> bool:
        """Tell whether a table holds a key."""
        return self._txn.get(key, db=table) is not None

    def count(self, table: Table) -> int:
        """Rows of a table."""
        return int(self._txn.stat(table)["entries"])

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

    def interests(self, key: bytes) -> records_pb2.InterestsRecord | None:
        """Read a user's interests."""
        value = self._txn.get(key, db=self.tables.interests)
        return None if value is None else records_pb2.InterestsRecord.FromString(bytes(value))

    def paths(self, key: bytes) -> records_pb2.InterestPathsRecord | None:
        """Read how a user's interests were reached."""
        value = self._txn.get(key, db=self.tables.paths)
        return None if value is None else records_pb2.InterestPathsRecord.FromString(bytes(value))

    def put(self, key: bytes, record: Record) -> None:
        """Write interests, their paths or a group of a user, or the list of a key.

        An empty list says that nothing reached the threshold. The oldest lists go where there are too many, and are
        counted.
        """
        if isinstance(record, records_pb2.NovelCategoriesRecord):
            self._put_list(key, record)
            return
        tables: dict[type[Record], Table] = {
            records_pb2.InterestsRecord: self.tables.interests,
            records_pb2.InterestPathsRecord: self.tables.paths,
            records_pb2.UserGroupRecord: self.tables.groups,
        }
        self._txn.put(key, record.SerializeToString(), db=tables[type(record)])

    def remove_interests(self, key: bytes) -> bool:
        """Remove a user's interests and paths; False if there are none."""
        self._txn.delete(key, db=self.tables.paths)
        return bool(self._txn.delete(key, db=self.tables.interests))

    def group(self, key: bytes) -> records_pb2.UserGroupRecord | None:
        """Read a user's group."""
        value = self._txn.get(key, db=self.tables.groups)
        return None if value is None else records_pb2.UserGroupRecord.FromString(bytes(value))

    def remove_group(self, key: bytes) -> bool:
        """Remove a user's group; False if there is none."""
        return bool(self._txn.delete(key, db=self.tables.groups))

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        """Read the list of a key."""
        value = self._txn.get(key, db=self.tables.lists)
        return None if value is None else records_pb2.NovelCategoriesRecord.FromString(bytes(value))

    def _put_list(self, key: bytes, record: records_pb2.NovelCategoriesRecord) -> None:
        self.remove_list(key)
        self._txn.put(key, record.SerializeToString(), db=self.tables.lists)
        self._txn.put(_age_place(key, record), key, db=self.tables.lists_by_age)
        while self.count(self.tables.lists) > self.tables.max_lists:
            self._evict_oldest()

    def remove_list(self, key: bytes) -> bool:
        """Remove the list of a key; False if there is none."""
        with contextlib.suppress(DecodeError):
            # The place of a record that cannot be decoded is unknown; it goes when its turn to be evicted comes.
            before = self.novel_categories(key)
            if before is not None:
                self._txn.delete(_age_place(key, before), db=self.tables.lists_by_age)
        return bool(self._txn.delete(key, db=self.tables.lists))

    def _evict_oldest(self) -> None:
        """Take the first place of the order by age away, and the list whose place it is, if there still is one."""
        with self._txn.cursor(self.tables.lists_by_age) as cursor:
            cursor.first()
            place, key = bytes(cursor.key()), bytes(cursor.value())
        self._txn.delete(place, db=self.tables.lists_by_age)
        with contextlib.suppress(DecodeError):
            record = self.novel_categories(key)
            if record is None or self.has(self.tables.lists_by_age, _age_place(key, record)):
                # Left behind by a record that could not be decoded; the list that replaced it stands elsewhere.
                return
        self._txn.delete(key, db=self.tables.lists)
        self.add(Kind.LISTS, _EVICTED)

    def add(self, kind: Kind, count: str, more: int = 1) -> None:
        """Raise a count of a kind."""
        if more:
            key = f"{_PREFIXES[kind]}{count}".encode()
            before = number(self._txn.get(key, db=self.tables.meta))
            self._txn.put(key, NUMBER.pack(before + more), db=self.tables.meta)

    def totals(self, kind: Kind) -> dict[str, int]:
        """Read all counts of a kind, by name."""
        own = _PREFIXES[kind]
        others = tuple(prefix for prefix in _PREFIXES.values() if prefix not in ("", own))
        with self._txn.cursor(self.tables.meta) as cursor:
            named = {bytes(name).decode(): number(value) for name, value in cursor}
        return {
            name.removeprefix(own): count
            for name, count in named.items()
            if name.startswith(own) and not name.startswith(others)
        }


def _age_place(key: bytes, record: records_pb2.NovelCategoriesRecord) -> bytes:
    return NUMBER.pack(max(0, record.generated_at)) + hashlib.blake2b(key, digest_size=16).digest()
