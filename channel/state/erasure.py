"""Users who asked to be forgotten: the list that every process of a host obeys at once.

One LMDB environment, its unnamed table: layout.user_key(user id) → when the user was added, Unix seconds (8 bytes,
big-endian). It is read at every request (a few µs) and by every build, so nothing else is in it.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb

from serendipity.channel.errors import StateFull, StateUnavailable
from serendipity.layout import user_key

DEFAULT_MAP_BYTES = 1 << 30
"""Largest size of the environment: some 15 million users."""

_TIME = struct.Struct(">Q")


@dataclass(frozen=True)
class Erasure:
    """A user of the list. user: the id, or its key in hex where only a hash of a long id is known; at: Unix seconds."""

    user: str
    at: int


class ErasureList:
    """The erasure list of one host; every process opens it once.

    path: directory of the environment, made if missing; map_bytes: its largest size; clock: Unix seconds.
    Raises StateUnavailable when it cannot be opened, and in all methods when it cannot be read or written.
    """

    def __init__(
        self, path: Path, *, map_bytes: int = DEFAULT_MAP_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        # As in messages: they reach callers, whom this machine's directories do not concern.
        self._name = path.name
        self._clock = clock
        with self._guarded("opened"):
            path.mkdir(parents=True, exist_ok=True)
            self._env = lmdb.open(str(path), map_size=map_bytes, max_dbs=0, max_readers=512, readahead=False)
            # Readers that were killed would otherwise pin old pages for ever.
            self._env.reader_check()

    def add(self, user_id: str) -> bool:
        """Add a user durably; False if the user was on the list, whose time stays. Every process sees it at once."""
        with self._guarded("written"), self._env.begin(write=True) as txn:
            return bool(txn.put(user_key(user_id), _TIME.pack(int(self._clock())), overwrite=False))

    def contains(self, user_id: str) -> bool:
        """Tell whether a user is on the list."""
        with self._guarded("read"), self._env.begin() as txn:
            return txn.get(user_key(user_id)) is not None

    def users(self) -> list[Erasure]:
        """List the users, by key."""
        with self._guarded("read"), self._env.begin() as txn, txn.cursor() as cursor:
            return [Erasure(_shown(bytes(key)), _TIME.unpack(value)[0]) for key, value in cursor]

    def keys(self) -> list[bytes]:
        """List the users by `layout.user_key`, in order."""
        with self._guarded("read"), self._env.begin() as txn, txn.cursor() as cursor:
            return [bytes(key) for key in cursor.iternext(keys=True, values=False)]

    def __len__(self) -> int:
        with self._guarded("read"):
            return int(self._env.stat()["entries"])

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def __enter__(self) -> ErasureList:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError as error:
            size = self._env.info()["map_size"]
            raise StateFull(f"{self._name}: full at {size} bytes; raise map_bytes") from error
        except (lmdb.Error, OSError, struct.error) as error:
            raise StateUnavailable(f"{self._name}: cannot be {what} ({error})") from error


def _shown(key: bytes) -> str:
    hashed = len(key) == 33 and key[0] == 1
    return f"sha256:{key[1:].hex()}" if hashed else key.decode(errors="replace")
