"""Tables of protobuf records in an environment: what is stored for a key, and the order in which it comes up.

All methods take the transaction they belong to. A record that cannot be decoded raises DecodeError when it is read; it
is overwritten and deleted like others.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import lmdb
from google.protobuf.message import DecodeError, Message

from serendipity.channel.state.environment import Environment, Table

NUMBER = struct.Struct(">Q")

Record = TypeVar("Record", bound=Message)


class Records(Generic[Record]):
    """Records of one kind by key, in a table made if missing."""

    def __init__(self, env: Environment, name: str, kind: type[Record]) -> None:
        self.table = env.table(name)
        self._kind = kind

    def get(self, txn: lmdb.Transaction, key: bytes) -> Record | None:
        """Read the record of a key."""
        value = txn.get(key, db=self.table)
        return None if value is None else self._kind.FromString(bytes(value))

    def get_readable(self, txn: lmdb.Transaction, key: bytes) -> Record | None:
        """Read the record of a key; None also where it cannot be decoded."""
        try:
            return self.get(txn, key)
        except DecodeError:
            return None

    def put(self, txn: lmdb.Transaction, key: bytes, record: Record) -> None:
        """Write the record of a key."""
        txn.put(key, record.SerializeToString(), db=self.table)

    def delete(self, txn: lmdb.Transaction, key: bytes) -> bool:
        """Remove the record of a key; False if there is none."""
        return bool(txn.delete(key, db=self.table))

    def count(self, txn: lmdb.Transaction) -> int:
        """Records."""
        return int(txn.stat(self.table)["entries"])

    def rows_from(self, txn: lmdb.Transaction, start: bytes = b"") -> Iterator[tuple[bytes, Record]]:
        """Read keys and their records in the keys' order, from a key on."""
        with txn.cursor(self.table) as cursor:
            if cursor.set_range(start):
                for key, value in cursor:
                    yield bytes(key), self._kind.FromString(bytes(value))

    def keys_after(self, txn: lmdb.Transaction, start: bytes, most: int) -> list[bytes]:
        """Read up to `most` keys that come after one, in their order; all come after the empty one."""
        keys: list[bytes] = []
        with txn.cursor(self.table) as cursor:
            found = cursor.set_range(start)
            if found and cursor.key() == start:
                found = cursor.next()
            while found and len(keys) < most:
                keys.append(bytes(cursor.key()))
                found = cursor.next()
        return keys


class OrderedRecords(Records[Record]):
    """Records each of which also stands in one order, at a place (a number); both follow from the record alone.

    orders: name → its table, made if missing; place_of: record → the name of its order, and its place there. Rows of
    an order: place (8 bytes) ‖ BLAKE2b-128 of the key → the key, of which up to LMDB's 511 bytes would leave no room.
    """

    def __init__(
        self,
        env: Environment,
        name: str,
        kind: type[Record],
        orders: Mapping[str, str],
        place_of: Callable[[Record], tuple[str, int]],
    ) -> None:
        super().__init__(env, name, kind)
        self._orders = {order: env.table(table) for order, table in orders.items()}
        self._place_of = place_of

    def put(self, txn: lmdb.Transaction, key: bytes, record: Record) -> None:
        """Write the record of a key into the table and into the order it belongs to."""
        self.delete(txn, key)
        super().put(txn, key, record)
        order, row = self._row(key, record)
        txn.put(row, key, db=order)

    def delete(self, txn: lmdb.Transaction, key: bytes) -> bool:
        """Remove the record of a key from both; False if there is none."""
        try:
            before = self.get(txn, key)
        except DecodeError:
            # Nothing tells its place: all of them are looked at, 0.3 s per million.
            for order in self._orders.values():
                with txn.cursor(order) as cursor:
                    rows = [bytes(row) for row, subject in cursor if subject == key]
                for row in rows:
                    txn.delete(row, db=order)
        else:
            if before is not None:
                order, row = self._row(key, before)
                txn.delete(row, db=order)
        return super().delete(txn, key)

    def size(self, txn: lmdb.Transaction, order: str) -> int:
        """Records that stand in an order."""
        return int(txn.stat(self._orders[order])["entries"])

    def keys(self, txn: lmdb.Transaction, order: str, most: int, until: int | None = None) -> list[bytes]:
        """Read keys in their order; until: those that stand at or before a place."""
        keys: list[bytes] = []
        with txn.cursor(self._orders[order]) as cursor:
            for row, key in cursor:
                if len(keys) == most or (until is not None and NUMBER.unpack_from(row)[0] > until):
                    break
                keys.append(bytes(key))
        return keys

    def first(self, txn: lmdb.Transaction, order: str, most: int) -> list[Record]:
        """Read the first records of an order; those that cannot be decoded are passed over."""
        records: list[Record] = []
        with txn.cursor(self._orders[order]) as cursor:
            for _, key in cursor:
                if len(records) == most:
                    break
                if (record := self.get_readable(txn, bytes(key))) is not None:
                    records.append(record)
        return records

    def last_key(self, txn: lmdb.Transaction, order: str) -> bytes | None:
        """Read the key that comes last in an order; None of an empty one."""
        with txn.cursor(self._orders[order]) as cursor:
            return bytes(cursor.value()) if cursor.last() else None

    def delete_first(self, txn: lmdb.Transaction, order: str) -> bool:
        """Remove what stands first in an order; False if its row was a leftover, and only that went."""
        with txn.cursor(self._orders[order]) as cursor:
            cursor.first()
            key = bytes(cursor.value())
            cursor.delete()
        return self.delete(txn, key)

    def _row(self, key: bytes, record: Record) -> tuple[Table, bytes]:
        order, place = self._place_of(record)
        return self._orders[order], NUMBER.pack(max(0, place)) + hashlib.blake2b(key, digest_size=16).digest()
