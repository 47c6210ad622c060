"""The feedback increment: clicks of a real feedback store, and everything else counted by why it is none."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import lmdb
import numpy as np
import pytest

from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.offline.coevolution.feedback import read_feedback
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.erasures import Erasures
from serendipity.offline.logs.errors import LogsError
from serendipity.v1 import channel_pb2

_CLICKS = ("click", "order")
_NOBODY = Erasures()
_NOW = 1_700_000_000


def _catalogue() -> Catalogue:
    return Catalogue(
        item_ids=["a1", "a2", "b1", "x"],
        titles=[""] * 4,
        paths=[("A",), ("A",), ("B",), ()],
        brands=[""] * 4,
        tags=[()] * 4,
        available=np.ones(4, np.bool_),
        prices=np.full(4, np.nan, np.float32),
        categories=["A", "B"],
        item_categories=np.array([1, 1, 2, 0], np.int32),
        category_offsets=np.array([0, 2, 3]),
        novelty_level=0,
    )


def _event(number: int, user: str, item: str, kind: str = "CLICK", **rest: str) -> channel_pb2.FeedbackEvent:
    event = channel_pb2.FeedbackEvent(
        event_id=f"e{number}", user_id=user, item_id=item, type=f"EVENT_TYPE_{kind}", **rest
    )
    event.time.seconds = _NOW - 100 + number
    return event


def _store(state: Path) -> Path:
    with FeedbackStore(state / "feedback", clock=lambda: float(_NOW)) as store:
        store.record(
            [
                _event(0, "u1", "a2"),
                _event(1, "u2", "b1", "ORDER"),
                _event(2, "u1", "b1", "EXPOSURE"),
                _event(3, "u1", "", "SEARCH", query="shoes"),
                _event(4, "u1", "gone"),
                _event(5, "u1", "x"),
                _event(6, "u3", "a1"),
            ]
        )
    return state / "feedback"


def _corrupt(store: Path, keys: list[bytes]) -> None:
    with lmdb.open(str(store), max_dbs=4) as environment:
        log = environment.open_db(b"log")
        with environment.begin(db=log, write=True) as transaction:
            for key in keys:
                transaction.put(key, b"\xff not a record")


def test_clicks_are_read_by_the_catalogues_numbers_and_all_else_is_counted(tmp_path: Path) -> None:
    found = read_feedback(_store(tmp_path), _catalogue(), _CLICKS, _NOBODY)

    assert list(found.clicks.user_ids) == ["u1", "u2", "u3"]
    assert found.clicks.items.tolist() == [2, 3, 1]
    assert found.clicks.categories.tolist() == [1, 2, 1]
    assert found.clicks.times.tolist() == [_NOW - 100, _NOW - 99, _NOW - 94]
    assert found.shown.items.tolist() == [3]
    assert found.shown.categories.tolist() == [2]
    assert found.skipped == {"other event": 1, "unknown item": 2}


def test_corrupt_rows_are_counted_and_do_not_stop_the_reading(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _corrupt(store, [(1).to_bytes(8, "big"), (99).to_bytes(8, "big")])

    found = read_feedback(store, _catalogue(), _CLICKS, _NOBODY)

    assert list(found.clicks.user_ids) == ["u1", "u3"]
    assert found.skipped["corrupt"] == 2


def test_a_log_of_several_pages_is_read_whole_once(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback", clock=lambda: float(_NOW)) as store:
        store.record([_event(number, f"u{number}", "a1") for number in range(2_500)])

    found = read_feedback(tmp_path / "feedback", _catalogue(), _CLICKS, _NOBODY)

    assert list(found.clicks.user_ids) == [f"u{number}" for number in range(2_500)]


def test_the_service_may_go_on_writing_while_the_log_is_read(tmp_path: Path) -> None:
    store = _store(tmp_path)
    # In the service's own process the store is open already; another process opens it a second time.
    with multiprocessing.get_context("spawn").Pool(1) as pool, FeedbackStore(store) as service:
        before = pool.apply(_count, (store,))
        service.record([_event(7, "u9", "a1")])
        assert pool.apply(_count, (store,)) == before + 1


def _count(store: Path) -> int:
    return len(read_feedback(store, _catalogue(), _CLICKS, _NOBODY).clicks)


def test_users_on_the_erasure_list_are_left_out(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with ErasureList(tmp_path / "erasures") as erasures:
        erasures.add("u1")

    found = read_feedback(store, _catalogue(), _CLICKS, Erasures.read(tmp_path / "erasures"))

    assert list(found.clicks.user_ids) == ["u2", "u3"]
    assert found.skipped["erased"] == 4


def test_without_a_store_the_error_names_the_directory(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match="nothing_here"):
        read_feedback(tmp_path / "nothing_here", _catalogue(), _CLICKS, _NOBODY)
