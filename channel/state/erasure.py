"""Users who asked to be forgotten: the list that every process of a host obeys at once.

One LMDB environment, its unnamed table: layout.user_key(user id) → when the user was added, Unix seconds (8 bytes,
big-endian). It is read at every request (a few µs) and by every build, so nothing else is in it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serendipity.channel.state.environment import Environment
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
        self._clock = clock
        self._env = Environment(path, map_bytes, max_tables=0)

    def add(self, user_id: str) -> bool:
        """Add a user durably; False if the user was on the list, whose time stays. Every process sees it at once."""
        with self._env.writing() as txn:
            return bool(txn.put(user_key(user_id), _TIME.pack(int(self._clock())), overwrite=False))

    def contains(self, user_id: str) -> bool:
        """Tell whether a user is on the list."""
        with self._env.reading() as txn:
            return txn.get(user_key(user_id)) is not None

    def users(self) -> list[Erasure]:
        """List the users, by key."""
        with self._env.reading() as txn, txn.cursor() as cursor:
            return [Erasure(_shown(bytes(key)), _TIME.unpack(value)[0]) for key, value in cursor]

    def keys(self) -> list[bytes]:
        """List the users by `layout.user_key`, in order."""
        with self._env.reading() as txn, txn.cursor() as cursor:
            return [bytes(key) for key in cursor.iternext(keys=True, values=False)]

    def __len__(self) -> int:
        with self._env.reading() as txn:
            return int(txn.stat()["entries"])

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def __enter__(self) -> ErasureList:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _shown(key: bytes) -> str:
    hashed = len(key) == 33 and key[0] == 1
    return f"sha256:{key[1:].hex()}" if hashed else key.decode(errors="replace")
