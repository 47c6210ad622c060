"""Availability between snapshots: last change wins, readers follow, other processes follow within seconds."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.channel.errors import StateFull, StateUnavailable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.state.availability import AvailabilityReader, AvailabilityStore
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.state import AvailabilityOverlay, UserState
from serendipity.v1 import channel_pb2


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AvailabilityStore]:
    opened = AvailabilityStore(tmp_path / "availability")
    yield opened
    opened.close()


def test_nothing_changed_is_the_empty_overlay(store: AvailabilityStore) -> None:
    reader = AvailabilityReader(lambda: store)
    assert reader.overlay().available == {}
    assert reader.overlay() is reader.refresh()
    reader.close()


def test_the_later_change_of_an_item_wins_inside_a_call_and_between_calls(store: AvailabilityStore) -> None:
    store.update([("tea", False), ("cup", False), ("tea", True)])
    assert store.changed_since(AvailabilityOverlay()).available == {"tea": True, "cup": False}
    store.update([("cup", True)])
    assert store.changed_since(AvailabilityOverlay(1)).available == {"cup": True}


def test_a_reader_gets_a_new_overlay_only_when_something_changed(store: AvailabilityStore) -> None:
    reader = AvailabilityReader(lambda: store, interval=3600)
    before = reader.overlay()
    store.update([("tea", False)])
    assert reader.overlay() is before
    assert reader.refresh().available == {"tea": False}
    assert reader.refresh() is reader.overlay()
    reader.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=5),
            st.sampled_from(["refresh", "prune"]),
        ),
        max_size=25,
    )
)
def test_a_reader_that_looks_now_and_then_sees_what_one_that_starts_anew_sees(
    steps: list[list[tuple[str, bool]] | str],
) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        store = AvailabilityStore(Path(directory), clock=clock)
        reader = AvailabilityReader(lambda: store, interval=3600)
        expected: dict[str, tuple[bool, float]] = {}
        for step in steps:
            clock.now += 1
            if step == "refresh":
                reader.refresh()
            elif step == "prune":
                store.prune(clock.now - 3)
                expected = {item: entry for item, entry in expected.items() if entry[1] >= clock.now - 3}
            else:
                store.update(step)  # type: ignore[arg-type]
                expected |= {item: (available, clock.now) for item, available in step}  # type: ignore[misc]
        assert reader.refresh().available == {item: entry[0] for item, entry in expected.items()}
        assert store.changed_since(AvailabilityOverlay()).available == reader.overlay().available
        reader.close()
        store.close()


def test_changes_survive_reopening(tmp_path: Path) -> None:
    store = AvailabilityStore(tmp_path)
    long_id = "ü" * 400
    store.update([(long_id, False)])
    store.close()
    store = AvailabilityStore(tmp_path)
    assert store.changed_since(AvailabilityOverlay()).available == {long_id: False}
    store.close()


def test_a_full_environment_keeps_what_it_had(tmp_path: Path) -> None:
    store = AvailabilityStore(tmp_path, map_bytes=128 * 1024)
    store.update([("tea", False)])
    with pytest.raises(StateFull, match="131072 bytes"):
        store.update([(f"item-{i}" * 20, False) for i in range(2_000)])
    assert store.changed_since(AvailabilityOverlay()).available == {"tea": False}
    assert store.generation() == 1
    store.close()


def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    store = AvailabilityStore(tmp_path)
    store.close()
    with pytest.raises(StateUnavailable):
        store.generation()


def _follow(path: Path, pipe: Connection) -> None:
    """Answer "seen" as soon as the background thread has seen the item out of stock."""
    store = AvailabilityStore(path)
    reader = AvailabilityReader(lambda: store, interval=0.2)
    pipe.send("ready")
    pipe.recv()
    while reader.overlay().available.get("tea", True):
        pass
    pipe.send("seen")
    reader.close()


def test_other_processes_see_a_change_within_five_seconds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        context.Process(target=_follow, args=(tmp_path, theirs), daemon=True).start()
        pipes.append(ours)
    assert [pipe.recv() for pipe in pipes] == ["ready", "ready"]
    store = AvailabilityStore(tmp_path)
    store.update([("tea", False)])
    for pipe in pipes:
        pipe.send("go")
    assert [pipe.poll(5) and pipe.recv() for pipe in pipes] == ["seen", "seen"]
    store.close()


def test_the_host_state_joins_feedback_ownership_and_availability(tmp_path: Path) -> None:
    store = AvailabilityStore(tmp_path / "availability")
    reader = AvailabilityReader(lambda: store, interval=3600)
    with (
        FeedbackStore(tmp_path / "feedback") as feedback,
        NearlineStore(tmp_path / "nearline") as nearline,
        ErasureList(tmp_path / "erasures") as erasures,
    ):
        state = UserState(lambda: feedback, reader.overlay, lambda: nearline, lambda: erasures)
        assert state.feedback("anna") is None
        assert state.owns("anna")
        click = channel_pb2.EVENT_TYPE_CLICK
        feedback.record([channel_pb2.FeedbackEvent(event_id="a", user_id="anna", item_id="tea", type=click)])
        record = state.feedback("anna")
        assert record is not None
        assert [e.item_id for e in record.clicks] == ["tea"]
        store.update([("tea", False)])
        reader.refresh()
        assert state.availability().available == {"tea": False}
    reader.close()
    store.close()
