"""The erasure list: durable, seen by every process at once, keyed as builds read it."""

from __future__ import annotations

import struct
import subprocess
import sys
import timeit
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity import layout
from serendipity.channel.errors import StateFull, StateUnavailable
from serendipity.channel.state.erasure import ErasureList

NOW = 1_700_000_000.0


@pytest.fixture
def erasures(tmp_path: Path) -> Iterator[ErasureList]:
    with ErasureList(tmp_path / "erasures", clock=lambda: NOW) as opened:
        yield opened


def test_a_user_added_is_on_the_list_and_nobody_else(erasures: ErasureList) -> None:
    assert erasures.add("anna")
    assert erasures.contains("anna")
    assert not erasures.contains("ann")
    assert [(erased.user, erased.at) for erased in erasures.users()] == [("anna", int(NOW))]


def test_adding_a_user_again_keeps_the_first_time(tmp_path: Path) -> None:
    moments = iter((NOW, NOW + 100))
    with ErasureList(tmp_path, clock=lambda: next(moments)) as erasures:
        assert erasures.add("anna")
        assert not erasures.add("anna")
        assert erasures.users()[0].at == int(NOW)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.text(min_size=1, max_size=600).filter(lambda text: "\0" not in text), unique=True, max_size=20))
def test_any_ids_are_kept_apart(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    with ErasureList(tmp_path_factory.mktemp("erasures")) as erasures:
        for user_id in ids[::2]:
            erasures.add(user_id)
        assert [erasures.contains(user_id) for user_id in ids] == [i % 2 == 0 for i in range(len(ids))]
        assert len(erasures) == len(erasures.users()) == len(ids[::2])


def test_an_id_too_long_for_a_key_is_listed_by_its_hash(erasures: ErasureList) -> None:
    erasures.add("x" * 9_000)
    assert erasures.contains("x" * 9_000)
    assert erasures.users()[0].user.startswith("sha256:")


def test_builds_find_the_user_key_and_the_seconds_in_the_unnamed_table(tmp_path: Path) -> None:
    with ErasureList(tmp_path, clock=lambda: NOW) as erasures:
        erasures.add("anna")
    with lmdb.open(str(tmp_path), readonly=True, lock=False) as environment, environment.begin() as txn:
        assert list(txn.cursor()) == [(layout.user_key("anna"), struct.pack(">Q", int(NOW)))]


def test_another_process_adds_and_this_one_sees_it_at_once(tmp_path: Path, erasures: ErasureList) -> None:
    assert not erasures.contains("anna")
    code = (
        "import sys; from pathlib import Path; from serendipity.channel.state.erasure import ErasureList; "
        "ErasureList(Path(sys.argv[1])).add('anna')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "erasures")], check=True)
    assert erasures.contains("anna")


def test_looking_a_user_up_costs_microseconds(erasures: ErasureList) -> None:
    for i in range(200):
        erasures.add(f"user-{i}")
    assert min(timeit.repeat(lambda: erasures.contains("somebody else"), number=100, repeat=10)) / 100 < 100e-6


def test_a_path_that_is_no_environment_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not an environment" * 1000)
    with pytest.raises(StateUnavailable, match="cannot be opened"):
        ErasureList(tmp_path)


def test_a_full_list_says_so_and_stays_readable(tmp_path: Path) -> None:
    ids = [f"user-{i:04d}" + "x" * 400 for i in range(1_000)]
    with ErasureList(tmp_path, map_bytes=64 << 10) as erasures:
        with pytest.raises(StateFull, match="full at 65536 bytes"):
            any(not erasures.add(user_id) for user_id in ids)
        assert erasures.contains(ids[0])
