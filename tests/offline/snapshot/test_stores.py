"""LMDB stores written once."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.offline.snapshot.stores import StoreSize, store_size, write_store


def _read(directory: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(directory), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


@settings(max_examples=25, deadline=None)
@given(
    records=st.dictionaries(st.binary(min_size=1, max_size=511), st.binary(max_size=200), max_size=50),
)
def test_what_was_written_is_read_back(records: dict[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("stores") / "some.lmdb"
    write_store(directory, sorted(records.items()))
    size = store_size(directory)
    assert _read(directory) == records
    assert size.entries == len(records)
    assert sorted(path.name for path in directory.parent.iterdir()) == ["some.lmdb"]


def test_a_store_larger_than_the_first_map_grows(tmp_path: Path) -> None:
    value = np.random.default_rng(0).bytes(4000)
    records = [(f"{i:08d}".encode(), value) for i in range(25_000)]
    write_store(tmp_path / "large.lmdb", iter(records))
    assert store_size(tmp_path / "large.lmdb") == StoreSize(25_000, 4000)
    assert 100e6 <= (tmp_path / "large.lmdb" / "data.mdb").stat().st_size < 110e6


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = [(f"{i:08d}".encode(), b"x" * i) for i in range(500)]
    write_store(tmp_path / "a.lmdb", records)
    write_store(tmp_path / "b.lmdb", records)
    assert (tmp_path / "a.lmdb" / "data.mdb").read_bytes() == (tmp_path / "b.lmdb" / "data.mdb").read_bytes()


def test_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"some.lmdb: key b'a' after b'b': expected ascending keys"):
        write_store(tmp_path / "some.lmdb", [(b"b", b""), (b"a", b"")])
