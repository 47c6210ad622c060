"""Availability changed between snapshots: stored once per host, seen by every worker.

One LMDB environment with the tables

    items    BLAKE2b-128 of the item id → generation (8 bytes, big-endian), available (1 byte), changed at (8-byte
             float, Unix seconds), item id (UTF-8)
    changes  generation ‖ key of the item → nothing; one entry an item, so that readers take only what is new to them
    meta     b"generation" → the last generation; b"pruned" → the generation of the last pruning

Every update is one generation. Workers look at the generation once a second (a few µs) and read the difference.
An entry outlives snapshot swaps; it goes once every snapshot on disk is newer than it (`prune`).
"""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.state.environment import Environment
from serendipity.channel.state.state import AvailabilityOverlay

_ENTRY = struct.Struct(">Q?d")
_NUMBER = struct.Struct(">Q")
_GENERATION = b"generation"
_PRUNED = b"pruned"


class AvailabilityStore:
    """The availability overlay of one host; every process opens it once.

    path: directory of the environment, made if missing; map_bytes: its largest size; clock: Unix seconds.
    Raises StateUnavailable when it cannot be opened, and in all methods when it cannot be read or written.
    """

    def __init__(self, path: Path, *, map_bytes: int = 4 << 30, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._env = Environment(path, map_bytes, max_tables=3)
        self._items, self._changes, self._meta = map(self._env.table, ("items", "changes", "meta"))

    def update(self, changes: Iterable[tuple[str, bool]]) -> int:
        """Store (item id, available) pairs durably, a later one for the same item winning; returns the generation."""
        now = self._clock()
        with self._env.writing() as txn:
            generation = _number(txn.get(_GENERATION, db=self._meta)) + 1
            for item_id, available in dict(changes).items():
                encoded = item_id.encode()
                key = hashlib.blake2b(encoded, digest_size=16).digest()
                before = txn.get(key, db=self._items)
                if before is not None:
                    txn.delete(bytes(before[: _NUMBER.size]) + key, db=self._changes)
                txn.put(key, _ENTRY.pack(generation, available, now) + encoded, db=self._items)
                txn.put(_NUMBER.pack(generation) + key, b"", db=self._changes)
            txn.put(_GENERATION, _NUMBER.pack(generation), db=self._meta)
        return generation

    def generation(self) -> int:
        """Number of the last update or pruning; 0 before the first."""
        with self._env.reading(self._meta) as txn:
            return _number(txn.get(_GENERATION))

    def changed_since(self, seen: AvailabilityOverlay) -> AvailabilityOverlay:
        """Give the present overlay, reading what changed after one seen; everything when entries were pruned since."""
        with self._env.reading() as txn:
            pruned = _number(txn.get(_PRUNED, db=self._meta)) > seen.generation
            start = _NUMBER.pack(0 if pruned else seen.generation + 1)
            available = {} if pruned else dict(seen.available)
            with txn.cursor(self._changes) as cursor:
                for change in cursor.iternext(keys=True, values=False) if cursor.set_range(start) else ():
                    entry = bytes(txn.get(change[_NUMBER.size :], b"", db=self._items))
                    available[entry[_ENTRY.size :].decode()] = bool(_ENTRY.unpack_from(entry)[1])
            return AvailabilityOverlay(_number(txn.get(_GENERATION, db=self._meta)), available)

    def prune(self, before: float) -> int:
        """Remove entries changed before a time (Unix seconds): the oldest `events_until` of the snapshots on disk.

        No snapshot that could still be served is older than what is removed, so all of them know better.
        """
        with self._env.writing() as txn:
            stale = []
            with txn.cursor(self._items) as cursor:
                for key, value in cursor:
                    if _ENTRY.unpack_from(value)[2] < before:
                        stale.append((bytes(key), bytes(value[: _NUMBER.size])))
            for key, generation in stale:
                txn.delete(key, db=self._items)
                txn.delete(generation + key, db=self._changes)
            if stale:
                pruning = _NUMBER.pack(_number(txn.get(_GENERATION, db=self._meta)) + 1)
                txn.put(_GENERATION, pruning, db=self._meta)
                txn.put(_PRUNED, pruning, db=self._meta)
        return len(stale)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


class AvailabilityReader:
    """A process's view of the overlay, refreshed in the background.

    store: gives the open store, or raises StateUnavailable; interval: seconds between looks at the generation;
    on_change: told an overlay right before it is the view; on_error: told when a look fails (the last view stays).
    """

    def __init__(
        self,
        store: Callable[[], AvailabilityStore],
        *,
        interval: float = 1.0,
        on_change: Callable[[AvailabilityOverlay], None] = lambda _: None,
        on_error: Callable[[StateUnavailable], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._interval = interval
        self._on_change = on_change
        self._on_error = on_error
        self._refreshing = threading.Lock()
        self._overlay = AvailabilityOverlay()
        self._unread = ""
        self._look(first=True)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="availability-reader", daemon=True)
        self._thread.start()

    def overlay(self) -> AvailabilityOverlay:
        """Return the present view; the same object until something changes. Raises StateUnavailable before the first.

        Later the last view stays for as long as no other can be read.
        """
        if self._unread:
            raise StateUnavailable(self._unread)
        return self._overlay

    def refresh(self) -> AvailabilityOverlay:
        """Take over what changed since the last look. Raises StateUnavailable."""
        with self._refreshing:
            store, seen = self._store(), self._overlay
            if store.generation() != seen.generation:
                overlay = store.changed_since(seen)
                self._on_change(overlay)
                self._overlay = overlay
            self._unread = ""
            return self._overlay

    def close(self) -> None:
        """Stop looking; the store stays open."""
        self._ending.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ending.wait(self._interval):
            self._look()

    def _look(self, *, first: bool = False) -> None:
        try:
            self.refresh()
        except StateUnavailable as error:
            if first:
                self._unread = str(error)
            self._on_error(error)


def _number(value: bytes | memoryview | None) -> int:
    return int(_NUMBER.unpack(value)[0]) if value else 0
