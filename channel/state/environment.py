"""One LMDB environment of a host's state, shared by all its processes, with LMDB's errors turned into the channel's."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import lmdb
from google.protobuf.message import DecodeError

from serendipity.channel.errors import StateCorrupt, StateFull, StateUnavailable

Table: TypeAlias = lmdb._Database
"""A table of an environment."""

_MAX_READERS = 512
_LOCK_FILE_BYTES = 64 << 10
"""Holds so many readers, and some more."""


class Environment:
    """An opened environment; every process opens it once.

    path: its directory, made if missing; map_bytes: its largest size; max_tables: named tables at most. Raises
    StateUnavailable, here and in all methods: StateFull at the largest size, and StateCorrupt where a record that
    cannot be decoded was read and nobody inside the transaction took its DecodeError.
    """

    def __init__(self, path: Path, map_bytes: int, max_tables: int) -> None:
        # As in messages: they reach callers, whom this machine's directories do not concern.
        self.name = path.name
        with self._guarded("opened"):
            make_private(path)
            _make_lock_file(path / "lock.mdb")
            # Defaults that matter here: lock=True (several processes write), sync=True and metasync=True (a
            # transaction that has ended is on disk).
            self.lmdb = lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=max_tables,
                max_readers=_MAX_READERS,
                readahead=False,
                mode=0o600,
            )
            # Readers that were killed would otherwise pin old pages for ever.
            self.lmdb.reader_check()

    def table(self, name: str) -> Table:
        """Open a table, made if missing."""
        with self._guarded("opened"):
            return self.lmdb.open_db(name.encode())

    @contextlib.contextmanager
    def reading(self, table: Table | None = None) -> Iterator[lmdb.Transaction]:
        """See the tables as of one moment. table: of calls that name none."""
        with self._guarded("read"), self.lmdb.begin(table) as txn:
            yield txn

    @contextlib.contextmanager
    def writing(self, table: Table | None = None) -> Iterator[lmdb.Transaction]:
        """Change the tables in one transaction, on disk when it has ended; other writers of the host wait."""
        with self._guarded("written"), self.lmdb.begin(table, write=True) as txn:
            yield txn

    def close(self) -> None:
        """Close the environment. May be called twice."""
        self.lmdb.close()

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError as error:
            size = self.lmdb.info()["map_size"]
            raise StateFull(
                f"{self.name}: full at {size} bytes; raise its map_bytes, or let what it holds expire sooner"
            ) from error
        except DecodeError as error:
            raise StateCorrupt(f"{self.name}: holds a record that cannot be decoded ({error})") from error
        except (lmdb.Error, OSError, struct.error) as error:
            raise StateUnavailable(f"{self.name}: cannot be {what} ({error})") from error


def make_private(directory: Path) -> None:
    """Make a directory of the host's state, or one that is there, its owner's alone, the files in it as well.

    It holds who did what. Raises OSError, of files that are another user's too.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (directory, *filter(Path.is_file, directory.iterdir())):
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if mode & 0o077:
                path.chmod(stat.S_IMODE(mode) & ~0o077)


def _make_lock_file(path: Path) -> None:
    """Make LMDB's lock file with its blocks, unless it is there. Raises OSError on a full disk.

    LMDB makes it without any and maps it: whoever writes there on a full disk is killed by SIGBUS.
    """
    # One that is there is not opened: to close it would let go of the locks that this process may have on it.
    if path.exists() and path.stat().st_size:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
    finally:
        os.close(descriptor)
