from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serendipity import layout
from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import (
    DeadlinePassed,
    SnapshotUnavailable,
    StateUnavailable,
    TowerAnswerInvalid,
    TowerTimeout,
    TowerUnavailable,
)
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall import recall as recall_module
from serendipity.channel.recall.query import RecallQuery, Source, WarningCode
from serendipity.channel.recall.recall import STORED_VECTORS, Channel
from serendipity.channel.recall.recalled import Recalled, SourceState
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import SnapshotHolder, open_snapshot
from serendipity.channel.state.state import AvailabilityOverlay, EmptyUserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.channel.tower.tower import UserTower
from serendipity.features import TowerInputs
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import DAY, NOW, SmallWorld

DEADLINE = 30.0

OTHERS = {Source.COLLABORATIVE: SourceState.OK, Source.GROUP: SourceState.EMPTY}
"""How the other sources fare in a snapshot without groups."""


class AwayTower:
    """A tower that fails in one way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> np.ndarray:
        raise self.error

    async def close(self) -> None:
        pass


class State(EmptyUserState):
    """Holds what a test puts there."""

    def __init__(self) -> None:
        super().__init__()
        self.record: records_pb2.UserFeedbackRecord | None = None
        self.overlay = AvailabilityOverlay()
        self.down = False
        self.owner = True

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        if self.down:
            raise StateUnavailable("feedback.lmdb: cannot be read")
        return self.record

    def owns(self, user_id: str) -> bool:
        return self.owner

    def availability(self) -> AvailabilityOverlay:
        if self.down:
            raise StateUnavailable("availability.lmdb: cannot be read")
        return self.overlay


@pytest.fixture
def state() -> State:
    return State()


@contextmanager
def a_channel(
    directory: Path,
    tower: UserTower,
    state: EmptyUserState | None = None,
    settings: ChannelSettings | None = None,
    now: int = NOW,
) -> Iterator[Channel]:
    holder = SnapshotHolder(open_snapshot(directory, verify=False))
    channel = Channel(holder, tower, state, settings, clock=lambda: now)
    yield channel
    channel.close()
    holder.close()


@pytest.fixture
async def channel(small_world: SmallWorld, local_tower: LocalTower, state: State) -> AsyncIterator[Channel]:
    with a_channel(small_world.snapshot_dir, local_tower, state) as opened:
        yield opened


def query(user_id: str, count: int = 20, **fields: object) -> RecallQuery:
    return RecallQuery(user_id=user_id, count=count, now=NOW, **fields)  # type: ignore[arg-type]


async def ask(channel: Channel, asked: RecallQuery) -> Recalled:
    return await channel.recall(asked, Deadline.after(DEADLINE))


def states(recalled: Recalled) -> dict[Source, SourceState]:
    return {outcome.source: outcome.state for outcome in recalled.source_outcomes}


def codes(recalled: Recalled) -> list[WarningCode]:
    return [warning.code for warning in recalled.warnings]


@pytest.fixture
def damaged(small_world: SmallWorld, tmp_path: Path) -> Callable[[str, bytes, bytes | None], Path]:
    """Copy the snapshot with one record replaced, or removed."""

    def damage(store: str, key: bytes, value: bytes | None) -> Path:
        directory = tmp_path / small_world.version
        if not directory.exists():
            shutil.copytree(small_world.snapshot_dir, directory)
        with (
            lmdb.open(str(directory / store), lock=False, map_size=2**24) as environment,
            environment.begin(write=True) as transaction,
        ):
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)
        return directory

    return damage


async def test_a_user_gets_what_was_planted(small_world: SmallWorld, channel: Channel) -> None:
    names = small_world.contents.catalogue.categories
    for user_id in small_world.user_ids[:20]:
        recalled = await ask(channel, query(user_id, 5))
        planted = {names[number - 1] for number in small_world.planted[user_id]}
        assert recalled.categories[recalled.category_indexes[0]] in planted
        assert states(recalled) == {Source.INTEREST: SourceState.OK, **OTHERS}
        assert not recalled.degraded
        assert recalled.warnings == ()


async def test_an_answer_is_ordered_calibrated_and_complete(small_world: SmallWorld, channel: Channel) -> None:
    recalled = await ask(channel, query(small_world.user_ids[2], 30))
    assert len(recalled) == 30
    assert (np.diff(recalled.scores) <= 0).all()
    assert ((recalled.scores >= 0) & (recalled.scores <= 1)).all()
    assert recalled.features.shape == (30, len(recalled.feature_names))
    assert np.isfinite(recalled.features).all()
    assert recalled.features[:, recalled.feature_names.index("relevance")].tolist() == recalled.relevance.tolist()
    assert (recalled.features[:, recalled.feature_names.index("novel")] == 1).all()
    assert recalled.all_reason_offsets[-1] == len(recalled.all_reason_indexes)
    assert {reason.source for reason in recalled.reasons} == {Source.INTEREST, Source.COLLABORATIVE}
    for i in range(30):
        mine = recalled.all_reason_indexes[recalled.all_reason_offsets[i] : recalled.all_reason_offsets[i + 1]]
        assert recalled.reason_indexes[i] in mine
        assert recalled.reasons[recalled.reason_indexes[i]].source == recalled.sources[i]
    assert sum(outcome.returned for outcome in recalled.source_outcomes) == 30
    assert [outcome.name for outcome in recalled.filter_outcomes] == [
        "novelty", "category", "availability", "excluded", "served",
    ]  # fmt: skip
    # The search is restricted already: these filters only prove it.
    assert [outcome.removed for outcome in recalled.filter_outcomes[:3]] == [0, 0, 0]
    assert recalled.times.total >= recalled.times.sources > 0


async def test_the_same_query_gets_the_same_answer(small_world: SmallWorld, channel: Channel) -> None:
    first, second = [await ask(channel, query(small_world.user_ids[4], 50)) for _ in range(2)]
    assert first.item_ids == second.item_ids
    assert first.scores.tolist() == second.scores.tolist()
    assert first.recall_id != second.recall_id


async def test_a_batch_answers_as_each_query_alone(small_world: SmallWorld, channel: Channel) -> None:
    queries = [query(user_id, 10) for user_id in [*small_world.user_ids[:10], "nobody"]]
    together = await channel.recall_batch(queries, Deadline.after(DEADLINE))
    for asked, answer in zip(queries, together, strict=True):
        alone = await ask(channel, asked)
        assert answer.item_ids == alone.item_ids
        np.testing.assert_allclose(answer.scores, alone.scores, rtol=1e-5)
    assert await channel.recall_batch([], Deadline.after(DEADLINE)) == []


async def test_an_unknown_user_gets_a_cold_start(channel: Channel) -> None:
    recalled = await ask(channel, query("nobody", 10))
    assert codes(recalled) == [WarningCode.COLD_USER]
    assert len(recalled) == 10
    assert not recalled.degraded
    assert set(recalled.unexpectedness.tolist()) == {1.0}
    interest_texts = [reason.text for reason in recalled.reasons if reason.source is Source.INTEREST]
    assert all(text.startswith("Many people") for text in interest_texts)


@pytest.mark.parametrize(
    "error",
    [TowerUnavailable("refused"), TowerTimeout("too slow"), TowerAnswerInvalid("NaN")],
    ids=lambda error: type(error).__name__,
)
async def test_stored_vectors_stand_in_for_a_tower_that_is_away(small_world: SmallWorld, error: Exception) -> None:
    with a_channel(small_world.snapshot_dir, AwayTower(error)) as channel:
        recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(recalled) == 10
    assert recalled.degraded_reasons == (f"user tower: {error}",)
    assert recalled.versions.user_tower == STORED_VECTORS
    assert states(recalled) == {Source.INTEREST: SourceState.OK, **OTHERS}


async def test_a_tower_of_other_dimensions_is_not_believed(small_world: SmallWorld) -> None:
    class Wider(AwayTower):
        async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> np.ndarray:
            return np.ones((len(inputs), 1 + inputs.interests.shape[1], 99), np.float32)

    with a_channel(small_world.snapshot_dir, Wider(TowerUnavailable(""))) as channel:
        recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(recalled) == 10
    assert "found 99 dimensions, expected 16" in recalled.degraded_reasons[0]


async def test_a_hanging_tower_leaves_time_for_the_search(small_world: SmallWorld) -> None:
    given: list[tuple[Deadline, float]] = []

    class Hanging(AwayTower):
        """Notes the time it would use up instead of waiting for its end."""

        async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> np.ndarray:
            given.append((deadline, time.monotonic()))
            raise TowerTimeout("hung")

    with a_channel(small_world.snapshot_dir, Hanging(TowerTimeout(""))) as channel:
        start = time.monotonic()
        deadline = Deadline.after(DEADLINE)
        recalled = await channel.recall(query(small_world.user_ids[0], 10), deadline)
    assert len(recalled) == 10
    assert recalled.degraded
    ((budget, asked),) = given
    # 60 % of what was left at one moment, counted from the next: both lie between `start` and `asked`.
    assert 0.6 * deadline.at + 0.4 * start <= budget.at <= 0.6 * deadline.at + asked - 0.6 * start


async def test_without_tower_and_stored_vector_the_answer_is_empty_and_says_so(
    damaged: Callable[[str, bytes, bytes | None], Path],
) -> None:
    directory = damaged(layout.USERS, layout.DEFAULT_USER, None)
    with a_channel(directory, AwayTower(TowerUnavailable("refused"))) as channel:
        recalled = await ask(channel, query("nobody", 10))
    assert len(recalled) == 0
    assert set(states(recalled).values()) == {SourceState.UNAVAILABLE}
    assert recalled.degraded


async def test_a_corrupt_user_record_is_a_degraded_cold_start(
    small_world: SmallWorld, local_tower: LocalTower, damaged: Callable[[str, bytes, bytes | None], Path]
) -> None:
    user_id = small_world.user_ids[0]
    with a_channel(damaged(layout.USERS, layout.user_key(user_id), b"\xff\xff"), local_tower) as channel:
        recalled = await ask(channel, query(user_id, 10))
    assert len(recalled) == 10
    (reason,) = recalled.degraded_reasons
    assert "are no UserRecord" in reason
    assert reason.endswith("novelty is judged without it")
    # The file by its snapshot, not by where this machine keeps it.
    assert f"user record: {small_world.version}/users.lmdb: key" in reason
    assert str(small_world.root) not in reason


@pytest.mark.parametrize(
    ("record", "state", "degraded"),
    [
        (None, SourceState.EMPTY, False),
        (b"\xff\xff", SourceState.UNAVAILABLE, True),
        (
            records_pb2.InterestsRecord(
                node_ids=[0], weights=[1], generated_at=NOW, expires_at=NOW + 1
            ).SerializeToString(),
            SourceState.EMPTY,
            True,
        ),
    ],
    ids=["missing", "corrupt", "of another taxonomy"],
)
async def test_interests_that_cannot_be_used_leave_the_other_source(
    small_world: SmallWorld,
    local_tower: LocalTower,
    damaged: Callable[[str, bytes, bytes | None], Path],
    record: bytes | None,
    state: SourceState,
    degraded: bool,
) -> None:
    user_id = small_world.user_ids[0]
    with a_channel(damaged(layout.INTERESTS, layout.user_key(user_id), record), local_tower) as channel:
        recalled = await ask(channel, query(user_id, 10))
    assert states(recalled) == {Source.INTEREST: state, **OTHERS}
    assert len(recalled) == 10
    assert recalled.degraded is degraded


@pytest.mark.parametrize(
    ("days", "state"), [(5, SourceState.OK), (7, SourceState.STALE), (28, SourceState.STALE), (30, SourceState.EMPTY)]
)
async def test_interests_turn_stale_and_then_too_old(
    small_world: SmallWorld, local_tower: LocalTower, days: int, state: SourceState
) -> None:
    with a_channel(small_world.snapshot_dir, local_tower) as channel:
        asked = RecallQuery(user_id=small_world.user_ids[0], count=10, now=NOW + days * DAY)
        recalled = await ask(channel, asked)
    assert states(recalled)[Source.INTEREST] is state
    assert not recalled.degraded


async def test_corrupt_paths_cost_only_their_sentences(
    small_world: SmallWorld, local_tower: LocalTower, damaged: Callable[[str, bytes, bytes | None], Path]
) -> None:
    user_id = small_world.user_ids[0]
    with a_channel(damaged(layout.INTEREST_PATHS, layout.user_key(user_id), b"\x0a\xff"), local_tower) as channel:
        recalled = await ask(channel, query(user_id, 10))
    assert len(recalled) == 10
    assert recalled.degraded
    texts = {reason.text for reason in recalled.reasons if reason.source is Source.INTEREST}
    assert all(text.startswith("You may be curious about ") for text in texts)


async def test_a_source_that_breaks_does_not_break_the_others(
    small_world: SmallWorld, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(recall_module.SOURCES[0], "find", broken)
    recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert states(recalled) == {Source.INTEREST: SourceState.UNAVAILABLE, **OTHERS}
    assert recalled.degraded_reasons == ("interest: failed (MemoryError); the logs say why",)
    assert len(recalled) == 10


async def test_no_thread_is_asked_where_there_is_nothing_to_search_by(
    small_world: SmallWorld, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Callable[[], object]] = []
    submit = channel._threads.submit

    def count(work: Callable[[], object]) -> object:
        asked.append(work)
        return submit(work)

    monkeypatch.setattr(channel._threads, "submit", count)
    # The small world has no lists of novel categories: interests and U2I alone search.
    assert states(await ask(channel, query(small_world.user_ids[0], 10))) == {
        Source.INTEREST: SourceState.OK,
        **OTHERS,
    }
    assert len(asked) == 2


async def test_a_source_that_hangs_times_out_and_holds_its_snapshot(
    small_world: SmallWorld, local_tower: LocalTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, finished = threading.Event(), threading.Event()
    find = recall_module.SOURCES[0].find

    def slow(*arguments: object) -> object:
        release.wait(60)
        try:
            return find(*arguments)  # type: ignore[arg-type]
        finally:
            finished.set()

    monkeypatch.setattr(recall_module.SOURCES[0], "find", slow)
    opened = open_snapshot(small_world.snapshot_dir)
    holder = SnapshotHolder(opened)
    # Of half a minute the search may take three seconds: the tower has time, and so has the source that does not hang.
    channel = Channel(holder, local_tower, settings=ChannelSettings(sources_share=0.1), clock=lambda: NOW)
    recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert states(recalled) == {Source.INTEREST: SourceState.TIMEOUT, **OTHERS}
    assert recalled.degraded_reasons == ("interest: did not answer before the deadline",)
    holder.close()
    # The thread still searches: the snapshot stays open until it is done.
    assert len(opened.users) > 0
    release.set()
    channel._threads.shutdown(wait=True)
    assert finished.is_set()
    with pytest.raises(Exception, match="is closed"):
        len(opened.users)


async def test_no_time_and_no_snapshot_are_the_only_failures(
    small_world: SmallWorld, channel: Channel, local_tower: LocalTower
) -> None:
    with pytest.raises(DeadlinePassed):
        await channel.recall(query("nobody"), Deadline.after(0))
    empty = Channel(SnapshotHolder(), local_tower)
    with pytest.raises(SnapshotUnavailable):
        await ask(empty, query("nobody"))
    empty.close()


async def test_all_categories_clicked_is_an_empty_answer(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    offsets = small_world.contents.catalogue.category_offsets
    state.record = records_pb2.UserFeedbackRecord(
        clicks=[
            pb.FeedbackEvent(item_id=small_world.item_ids[row], time=Timestamp(seconds=NOW)) for row in offsets[:-1]
        ]
    )
    recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(recalled) == 0
    assert set(states(recalled).values()) == {SourceState.EMPTY}
    assert not recalled.degraded
    assert recalled.features.shape == (0, len(recalled.feature_names))


async def test_an_allow_list_without_novel_categories_is_an_empty_answer(
    small_world: SmallWorld, channel: Channel
) -> None:
    clicked = small_world.contents.users["user-00"].click_categories[0]
    name = small_world.contents.catalogue.categories[clicked - 1]
    recalled = await ask(channel, query("user-00", 10, allow_categories=(name,)))
    assert len(recalled) == 0
    assert set(states(recalled).values()) == {SourceState.EMPTY}


async def test_a_thousand_wanted_and_three_left_gives_three(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    catalogue = small_world.contents.catalogue
    keep = [i for i, up in enumerate(catalogue.available) if up and catalogue.item_categories[i]][:3]
    state.overlay = AvailabilityOverlay(1, {item_id: row in keep for row, item_id in enumerate(catalogue.item_ids)})
    recalled = await ask(channel, query("nobody", 1_000))
    assert sorted(recalled.item_ids) == sorted(catalogue.item_ids[row] for row in keep)


async def test_excluded_and_sold_out_items_are_not_returned_but_replaced(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    user_id = small_world.user_ids[0]
    first = await ask(channel, query(user_id, 10))
    second = await ask(channel, query(user_id, 10, exclude_item_ids=first.item_ids))
    assert len(second) == 10
    assert not set(first.item_ids) & set(second.item_ids)
    assert next(o.removed for o in second.filter_outcomes if o.name == "excluded") >= 10
    state.overlay = AvailabilityOverlay(1, dict.fromkeys(first.item_ids, False))
    third = await ask(channel, query(user_id, 10))
    assert third.item_ids == second.item_ids


async def test_items_shown_lately_are_not_shown_again(small_world: SmallWorld, channel: Channel, state: State) -> None:
    user_id = small_world.user_ids[0]
    first = await ask(channel, query(user_id, 10))
    shown, long_ago = first.item_ids[:5], first.item_ids[5:]
    state.record = records_pb2.UserFeedbackRecord(
        exposures=[
            pb.FeedbackEvent(item_id=item_id, time=Timestamp(seconds=time))
            for items, time in ((shown, NOW - 3_600), (long_ago, NOW - 25 * 3_600))
            for item_id in items
        ]
    )
    second = await ask(channel, query(user_id, 10))
    assert not set(shown) & set(second.item_ids)
    assert long_ago[0] in second.item_ids
    assert next(o.removed for o in second.filter_outcomes if o.name == "served") == 5


async def test_state_that_cannot_be_read_degrades_the_answer(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    state.down = True
    recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(recalled) == 10
    assert [reason.split(":")[0] for reason in recalled.degraded_reasons] == ["feedback", "availability"]


async def test_a_host_that_does_not_own_the_user_says_so(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    state.owner = False
    recalled = await ask(channel, query(small_world.user_ids[0], 10))
    assert codes(recalled) == [WarningCode.NOT_OWNER]


async def test_a_swap_between_requests_changes_the_version(
    small_world: SmallWorld, local_tower: LocalTower, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(small_world.snapshot_dir, other)
    manifest = layout.read_manifest(other)
    manifest.version = "other"
    layout.write_manifest(other, manifest)
    holder = SnapshotHolder(open_snapshot(small_world.snapshot_dir))
    channel = Channel(holder, local_tower, clock=lambda: NOW)
    before = await ask(channel, query(small_world.user_ids[0], 10))
    running = asyncio.gather(*(ask(channel, query(user_id, 10)) for user_id in small_world.user_ids[:20]))
    await asyncio.to_thread(holder.swap, other, verify=False)
    during = await running
    after = await ask(channel, query(small_world.user_ids[0], 10))
    assert (before.versions.snapshot, after.versions.snapshot) == (small_world.version, "other")
    assert all(len(answer) == 10 and not answer.degraded for answer in during)
    assert before.item_ids == after.item_ids
    channel.close()
    holder.close()


async def test_now_is_the_snapshots_moment_where_asked_for(small_world: SmallWorld, local_tower: LocalTower) -> None:
    settings = ChannelSettings(clock="snapshot")
    with a_channel(small_world.snapshot_dir, local_tower, settings=settings, now=NOW + 999 * DAY) as channel:
        assert channel.now() == NOW
    with a_channel(small_world.snapshot_dir, local_tower, now=NOW + 999 * DAY) as channel:
        assert channel.now() == NOW + 999 * DAY


def test_deadlines_come_from_the_caller_within_bounds(local_tower: LocalTower) -> None:
    channel = Channel(SnapshotHolder(), local_tower)
    for time_left, num_queries, expected in ((None, 1, 0.05), (None, 5, 0.25), (0.6, 1, 0.6), (3_600, 1, 2.0)):
        before = time.monotonic()
        deadline = channel.deadline(time_left, num_queries)
        assert before + expected <= deadline.at <= time.monotonic() + expected
    channel.close()


@pytest.mark.parametrize(
    ("name", "source"), [("SOURCE_INTEREST", Source.INTEREST), ("SOURCE_COLLABORATIVE", Source.COLLABORATIVE)]
)
def test_quotas_bound_the_sources(
    small_world: SmallWorld, local_channel: LocalChannel, name: str, source: Source
) -> None:
    request = pb.RecallRequest(user_id=small_world.user_ids[0], count=20)
    request.source_quotas.add(source=pb.Source.Value(name), max_count=0)
    response = local_channel.recall(request)
    assert len(response.item_ids) == 20
    assert source not in response.sources
    del request.source_quotas[:]
    request.source_quotas.add(source=pb.Source.Value(name), min_count=3, max_count=4)
    response = local_channel.recall(request)
    assert 1 <= list(response.sources).count(source) <= 4


def test_soft_and_off_let_known_categories_in(small_world: SmallWorld, local_channel: LocalChannel) -> None:
    user_id = small_world.user_ids[0]
    names = small_world.contents.catalogue.categories
    clicked = {names[c - 1] for c in small_world.contents.users[user_id].click_categories}
    by_policy = {
        policy: local_channel.recall(pb.RecallRequest(user_id=user_id, count=100, novelty_policy=policy))
        for policy in (pb.NOVELTY_POLICY_STRICT, pb.NOVELTY_POLICY_SOFT, pb.NOVELTY_POLICY_OFF)
    }
    assert not clicked & set(by_policy[pb.NOVELTY_POLICY_STRICT].categories)
    assert clicked & set(by_policy[pb.NOVELTY_POLICY_SOFT].categories)
    off = dict(zip(by_policy[pb.NOVELTY_POLICY_OFF].item_ids, by_policy[pb.NOVELTY_POLICY_OFF].scores, strict=True))
    soft = by_policy[pb.NOVELTY_POLICY_SOFT]
    for item_id, score, index in zip(soft.item_ids, soft.scores, soft.category_indexes, strict=True):
        if item_id in off:
            weight = 0.5 if soft.categories[index] in clicked else 1.0
            assert score == pytest.approx(off[item_id] * weight)
