"""Every cause of a short answer and of an empty source, as a caller meets it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import TowerUnavailable
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.hydrate import hydrate
from serendipity.channel.recall.pool import UserVectors
from serendipity.channel.recall.query import SOURCES, RecallQuery
from serendipity.channel.recall.search import search
from serendipity.channel.recall.shortfalls import tell_shortfalls
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import AvailabilityOverlay, UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.features import TowerInputs
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.grouped_world import GroupedWorld
from tests.fixtures.small_world import DAY, DIM, NOW, SmallWorld

USER = "user-01"
I2I, U2I, GROUP, GRAPH = SOURCES

SETTINGS = ChannelSettings()


class State(UserState):
    """Holds what a test puts there."""

    def __init__(self) -> None:
        super().__init__()
        self.overlay = AvailabilityOverlay()

    def availability(self) -> AvailabilityOverlay:
        return self.overlay


class NoTower:
    """A tower that is away, so that stored vectors stand in."""

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: object) -> np.ndarray:
        raise TowerUnavailable("away")

    async def close(self) -> None:
        pass


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def changed(small_world: SmallWorld, tmp_path: Path) -> Callable[[Mapping[str, tuple[bytes, bytes | None]]], Path]:
    """Copy the snapshot without groups with one record replaced, or removed, in each of some stores."""

    def change(records: Mapping[str, tuple[bytes, bytes | None]]) -> Path:
        directory = tmp_path / small_world.version
        shutil.copytree(small_world.snapshot_dir, directory)
        for store, (key, value) in records.items():
            with (
                lmdb.open(str(directory / store), lock=False, map_size=2**24) as opened,
                opened.begin(write=True) as txn,
            ):
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)
        return directory

    return change


Recall = Callable[..., pb.RecallResponse]


@pytest.fixture
def recall(grouped_world: GroupedWorld, small_world: SmallWorld, state: State) -> Iterator[Recall]:
    """Ask a channel over the small world with groups; or over another snapshot, with other settings or no tower."""
    with ExitStack() as opened:

        def ask(
            user_id: str = USER,
            count: int = 20,
            *,
            directory: Path = grouped_world.snapshot_dir,
            settings: ChannelSettings = SETTINGS,
            now: int = NOW,
            tower: bool = True,
            **fields: object,
        ) -> pb.RecallResponse:
            channel = opened.enter_context(
                LocalChannel(
                    directory,
                    LocalTower(small_world.tower_path) if tower else NoTower(),
                    state,
                    settings,
                    clock=lambda: now,
                    verify=False,
                )
            )
            return channel.recall(pb.RecallRequest(user_id=user_id, count=count, **fields))  # type: ignore[arg-type]

        yield ask


def causes(response: pb.RecallResponse) -> list[str]:
    return [name(shortfall.cause) for shortfall in response.shortfalls]


def source_causes(response: pb.RecallResponse) -> dict[pb.Source, str]:
    return {status.source: name(status.shortfall_cause) for status in response.source_statuses if not status.found}


def name(cause: pb.ShortfallCause) -> str:
    return pb.ShortfallCause.Name(cause).removeprefix("SHORTFALL_CAUSE_")


def quotas(*maxima: int) -> list[pb.SourceQuota]:
    return [pb.SourceQuota(source=source, max_count=most) for source, most in zip(SOURCES, maxima, strict=True)]


def clicks(world: SmallWorld) -> list[pb.Event]:
    """A click in every category."""
    rows = world.catalogue.category_offsets[:-1]
    return [pb.Event(item_id=world.item_ids[row], type=pb.EVENT_TYPE_CLICK) for row in rows]


def test_a_whole_answer_has_no_shortfalls(recall: Recall) -> None:
    response = recall()
    assert len(response.item_ids) == 20
    assert (causes(response), source_causes(response)) == ([], {})


def test_categories_that_are_clicked_or_not_listed_leave_nothing(small_world: SmallWorld, recall: Recall) -> None:
    clicked = recall(recent_events=clicks(small_world))
    assert causes(clicked) == ["CATEGORIES_CLICKED"]
    assert source_causes(clicked) == dict.fromkeys(SOURCES, "CATEGORIES_CLICKED")
    for lists in ({"allow_categories": ["no such"]}, {"deny_categories": small_world.catalogue.categories}):
        unlisted = recall(**lists)
        assert causes(unlisted) == ["CATEGORIES_NOT_LISTED"]
        assert source_causes(unlisted) == dict.fromkeys(SOURCES, "CATEGORIES_NOT_LISTED")


def test_items_that_are_sold_excluded_or_few_are_told_apart(
    small_world: SmallWorld, recall: Recall, state: State
) -> None:
    few = recall("nobody", 1_000)
    (shortfall,) = few.shortfalls
    assert name(shortfall.cause) == "FEW_ITEMS"
    assert shortfall.message.startswith(f"found {len(few.item_ids)} items available")
    excluded = recall(exclude_item_ids=small_world.item_ids)
    assert causes(excluded) == ["FILTERED"]
    assert excluded.shortfalls[0].message.startswith("filters removed: excluded ")
    assert source_causes(excluded) == dict.fromkeys(SOURCES, "FILTERED")
    assert causes(recall(count=1_000, exclude_item_ids=few.item_ids)) == ["FEW_ITEMS", "FILTERED"]
    state.overlay = AvailabilityOverlay(1, dict.fromkeys(small_world.item_ids, False))
    sold = recall()
    assert causes(sold) == ["NOTHING_AVAILABLE"]
    assert source_causes(sold) == dict.fromkeys(SOURCES, "NOTHING_AVAILABLE")


def test_quotas_leave_places_empty_and_switch_sources_off(recall: Recall) -> None:
    bounded = recall(source_quotas=quotas(2, 2, 2, 2))
    assert (len(bounded.item_ids), causes(bounded), source_causes(bounded)) == (8, ["QUOTAS"], {})
    off = recall(source_quotas=quotas(0, 0, 0, 0))
    assert causes(off) == ["SWITCHED_OFF"]
    assert off.shortfalls[0].message.startswith("interest, collaborative, group, graph: switched off")
    # Where others fill the answer only the source says so.
    settings = ChannelSettings(interests_used=0, novel_categories_used=0, graph_source=False)
    filled = recall(settings=settings)
    assert (len(filled.item_ids), causes(filled)) == (20, [])
    assert source_causes(filled) == dict.fromkeys((I2I, GROUP, GRAPH), "SWITCHED_OFF")


FOREIGN = records_pb2.InterestsRecord(node_ids=[0], weights=[1], generated_at=NOW, expires_at=NOW + 1)


@pytest.mark.parametrize(
    ("record", "days", "cause"),
    [
        (None, 0, "NO_INTERESTS"),
        (FOREIGN.SerializeToString(), 0, "INTERESTS_FOREIGN"),
        (b"\xff\xff", 0, "UNREADABLE"),
        (b"", 40, "INTERESTS_TOO_OLD"),
    ],
)
def test_interests_that_cannot_be_searched_by_say_why(
    changed: Callable[[Mapping[str, tuple[bytes, bytes | None]]], Path],
    recall: Recall,
    record: bytes | None,
    days: int,
    cause: str,
) -> None:
    directory = changed({} if record == b"" else {layout.INTERESTS: (layout.user_key(USER), record)})
    # Other sources fill the answer.
    filled = recall(directory=directory, now=NOW + days * DAY)
    assert (len(filled.item_ids), causes(filled)) == (20, [])
    assert source_causes(filled) == {I2I: cause, GROUP: "NO_LIST", GRAPH: "NO_GRAPH"}
    alone = recall(directory=directory, now=NOW + days * DAY, source_quotas=quotas(20, 0, 0, 0))
    assert causes(alone) == [cause, "SWITCHED_OFF"]
    # Of bounded sources as well, those are missed that would have filled the places.
    bounded = recall(directory=directory, now=NOW + days * DAY, source_quotas=quotas(20, 5, 20, 20))
    assert causes(bounded) == ["QUOTAS", cause, "NO_LIST", "NO_GRAPH"]


def test_interests_too_old_by_the_clock_say_how_old(recall: Recall) -> None:
    response = recall(now=NOW + 40 * DAY, source_quotas=quotas(20, 0, 0, 0))
    assert response.shortfalls[0].message == "interest: found interests 41 days old by the clock, expected at most 30"


def test_interests_and_lists_that_lead_nowhere_say_so(small_world: SmallWorld, recall: Recall, state: State) -> None:
    names = small_world.catalogue.categories
    known = set(small_world.clicks(USER).categories.tolist())
    planted = set(small_world.planted[USER])
    elsewhere = [names[number - 1] for number in range(1, 13) if number not in known | planted]
    nowhere = recall(allow_categories=elsewhere)
    assert source_causes(nowhere) == {I2I: "INTERESTS_EXHAUSTED"}
    # A list leads to no category that the user knows, whatever the policy.
    clicked = [names[number - 1] for number in known]
    exhausted = recall(
        allow_categories=clicked, novelty_policy=pb.NOVELTY_POLICY_OFF, source_quotas=quotas(0, 0, 20, 0)
    )
    assert source_causes(exhausted) == {
        **dict.fromkeys((I2I, U2I, GRAPH), "SWITCHED_OFF"),
        GROUP: "LISTS_EXHAUSTED",
    }
    assert causes(exhausted) == ["SWITCHED_OFF", "LISTS_EXHAUSTED"]
    # What they lead to may be sold out while the rest is not.
    rows = [row for row, number in enumerate(small_world.catalogue.item_categories) if int(number) in planted]
    state.overlay = AvailabilityOverlay(1, {small_world.item_ids[row]: False for row in rows})
    sold = recall(tower=False)
    assert source_causes(sold) == {I2I: "NOTHING_AVAILABLE"}


def test_an_answer_without_any_vector_is_unreadable(
    changed: Callable[[Mapping[str, tuple[bytes, bytes | None]]], Path], recall: Recall
) -> None:
    directory = changed({layout.USERS: (layout.DEFAULT_USER, None)})
    response = recall("nobody", directory=directory, tower=False)
    assert causes(response) == ["UNREADABLE", "NO_GRAPH"]
    assert source_causes(response) == {**dict.fromkeys(SOURCES, "UNREADABLE"), GRAPH: "NO_GRAPH"}
    assert response.degraded_reasons


def test_categories_that_are_dismissed_leave_nothing(snapshot: Snapshot) -> None:
    query = RecallQuery(user_id=USER, count=10, now=NOW)
    with SnapshotHolder(snapshot).acquire() as lease:
        user = hydrate(lease, query, UserState(), SETTINGS)
    nothing = replace(user.ranges, starts=user.ranges.starts[:0], ends=user.ranges.ends[:0])
    user = replace(user, allowed=np.zeros_like(user.allowed), ranges=nothing)
    vectors = UserVectors(np.ones((1 + len(user.interests), DIM), np.float32), fallback=False)
    found = search(snapshot, user, vectors, 20)
    (shortfall,) = tell_shortfalls(found, user, ChannelSettings(), 0, 0)
    assert name(shortfall.cause) == "CATEGORIES_DISMISSED"
