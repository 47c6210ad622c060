"""LMDB stores, written once, in key order, compacted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import lmdb

from serendipity.layout import sync_file

_BATCH = 20_000
_FIRST_MAP_SIZE = 64 * 2**20


@dataclass(frozen=True)
class StoreSize:
    """How large a store is: entries, mean bytes of a value."""

    entries: int
    mean_value_bytes: float


def write_store(directory: Path, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Write records, which come in ascending key order without repetition, as one compact LMDB environment.

    Raises ValueError for a key out of order and FileExistsError if `directory` exists.
    """
    directory.mkdir()
    scratch = directory.with_name(f".{directory.name}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    # Nothing of the scratch environment outlives this call, so only the compacted copy is synced.
    with lmdb.open(str(scratch), map_size=_FIRST_MAP_SIZE, lock=False, sync=False, metasync=False) as environment:
        remaining = iter(records)
        previous = b""
        while batch := list(islice(remaining, _BATCH)):
            for key, _ in batch:
                if key <= previous:
                    raise ValueError(f"{directory.name}: key {key!r} after {previous!r}: expected ascending keys")
                previous = key
            _put(environment, batch)
        environment.copy(str(directory), compact=True)
    shutil.rmtree(scratch)
    sync_file(directory / "data.mdb")


def store_size(directory: Path) -> StoreSize:
    """Measure a store. Raises lmdb.Error if it is none."""
    with (
        lmdb.open(str(directory), readonly=True, lock=False, create=False) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        entries = value_bytes = 0
        for value in transaction.cursor().iternext(keys=False, values=True):
            entries += 1
            value_bytes += len(value)
    return StoreSize(entries, value_bytes / entries if entries else 0.0)


def _put(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            with environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(batch, append=True)
            return
        except lmdb.MapFullError:
            # The aborted transaction left nothing behind; the same batch goes into a larger map.
            environment.set_mapsize(2 * environment.info()["map_size"])
