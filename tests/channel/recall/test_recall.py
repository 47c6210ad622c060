from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

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
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.filters import FILTERS
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.query import SOURCES, RecallQuery, RecentEvent, SourceBounds, source_name
from serendipity.channel.recall.recall import STORED_VECTORS, Channel
from serendipity.channel.recall.search import CANDIDATE_SOURCES, Found, search
from serendipity.channel.recall.sources.interest import InterestSource
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.state.state import AvailabilityOverlay, UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.channel.tower.tower import UserTower
from serendipity.features import TowerInputs
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import DAY, NOW, SmallWorld

DEADLINE = 30.0

OTHERS = {
    pb.SOURCE_COLLABORATIVE: pb.SOURCE_STATE_OK,
    pb.SOURCE_GROUP: pb.SOURCE_STATE_EMPTY,
    pb.SOURCE_GRAPH: pb.SOURCE_STATE_EMPTY,
}
"""How the other sources fare in a snapshot without groups."""


class AwayTower:
    """A tower that fails in one way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> np.ndarray:
        raise self.error

    async def close(self) -> None:
        pass


class State(UserState):
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
    state: UserState | None = None,
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


async def ask(channel: Channel, asked: RecallQuery) -> pb.RecallResponse:
    return (await channel.recall(asked, Deadline.after(DEADLINE))).response


def states(response: pb.RecallResponse) -> dict[pb.Source, pb.SourceState]:
    return {status.source: status.state for status in response.source_statuses}


def codes(response: pb.RecallResponse) -> list[pb.WarningCode]:
    return [warning.code for warning in response.warnings]


def removed(response: pb.RecallResponse, name: str) -> int:
    return next(count.removed for count in response.filter_counts if count.filter == name)


def features(response: pb.RecallResponse) -> dict[str, list[float]]:
    matrix = np.array(response.rank_features.values).reshape(response.rank_features.num_rows, len(FEATURE_NAMES))
    return dict(zip(FEATURE_NAMES, matrix.T.tolist(), strict=True))


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
        response = await ask(channel, query(user_id, 5))
        planted = {names[number - 1] for number in small_world.planted[user_id]}
        assert response.categories[response.category_indexes[0]] in planted
        assert states(response) == {pb.SOURCE_INTEREST: pb.SOURCE_STATE_OK, **OTHERS}
        assert not response.degraded
        assert not response.warnings


async def test_an_answer_is_ordered_and_complete_and_its_scores_are_the_models(
    small_world: SmallWorld, snapshot: Snapshot, channel: Channel
) -> None:
    response = await ask(channel, query(small_world.user_ids[2], 30))
    assert len(response.item_ids) == 30
    assert (np.diff(response.scores) <= 0).all()
    assert all(0 <= score <= 1 for score in response.scores)
    assert (list(response.rank_features.names), response.rank_features.num_rows) == (list(FEATURE_NAMES), 30)
    assert np.isfinite(response.rank_features.values).all()
    columns = features(response)
    of_source = [columns[f"{source_name(source)}_score"][i] for i, source in enumerate(response.sources)]
    assert of_source == list(response.relevance)
    assert columns["unexpectedness"] == list(response.unexpectedness)
    assert columns["novel"] == [1.0] * 30
    assert response.all_reason_offsets[-1] == len(response.all_reason_indexes)
    assert {reason.source for reason in response.reasons} == {pb.SOURCE_INTEREST, pb.SOURCE_COLLABORATIVE}
    for i in range(30):
        mine = response.all_reason_indexes[response.all_reason_offsets[i] : response.all_reason_offsets[i + 1]]
        assert response.reason_indexes[i] in mine
        assert response.reasons[response.reason_indexes[i]].source == response.sources[i]
    assert sum(status.returned for status in response.source_statuses) == 30
    assert [count.filter for count in response.filter_counts] == list(FILTERS)
    # The search is restricted already: these filters only prove it.
    assert [count.removed for count in response.filter_counts[:3]] == [0, 0, 0]
    assert response.timings.total.ToNanoseconds() >= response.timings.sources.ToNanoseconds() > 0
    # A score is what the snapshot's model makes of the features that the host is sent as well.
    read = np.array([columns[name] for name in snapshot.merge.columns], np.float32).T
    np.testing.assert_allclose(response.scores, snapshot.merge.probabilities(read), rtol=1e-5)
    assert response.versions.merge == snapshot.merge.id


async def test_what_a_request_wants_of_surprise_goes_before_the_settings_and_those_before_the_snapshot(
    small_world: SmallWorld, snapshot: Snapshot, local_tower: LocalTower
) -> None:
    user_id = small_world.user_ids[2]

    async def answer(asked: float | None, setting: float | None, learned: float) -> list[str]:
        served = replace(snapshot, merge=replace(snapshot.merge, surprise=learned))
        settings = ChannelSettings(surprise=setting, category_share=1.0)
        channel = Channel(SnapshotHolder(served), local_tower, settings=settings, clock=lambda: NOW)
        # What the user knows is expected.
        asking = query(user_id, 30, surprise=asked, novelty_policy=pb.NOVELTY_POLICY_OFF)
        response = await ask(channel, asking)
        channel.close()
        value = np.array(response.scores) * np.maximum(response.unexpectedness, 0.05) ** (
            2 * next(each for each in (asked, setting, learned) if each is not None)
        )
        assert (np.diff(value) <= 1e-6).all()
        return list(response.item_ids)

    plain, surprising = await answer(None, None, 0.0), await answer(None, None, 1.0)
    assert plain != surprising
    assert await answer(1.0, 0.0, 0.0) == await answer(None, 1.0, 0.0) == surprising
    # Nothing at all is a wish as well.
    assert await answer(0.0, 1.0, 1.0) == await answer(None, 0.0, 1.0) == plain


async def test_the_same_query_gets_the_same_answer(small_world: SmallWorld, channel: Channel) -> None:
    first, second = [await ask(channel, query(small_world.user_ids[4], 50)) for _ in range(2)]
    assert first.item_ids == second.item_ids
    assert first.scores == second.scores
    assert first.recall_id != second.recall_id


async def test_a_batch_answers_as_each_query_alone(small_world: SmallWorld, channel: Channel) -> None:
    users = [*small_world.user_ids[:10], "nobody"]
    queries = [query(user_id, 3 * i + 1) for i, user_id in enumerate(users)]
    # Whatever the queries ask for, and however many interests their users have.
    queries += [
        query(users[0], 10, novelty_policy=pb.NOVELTY_POLICY_OFF, explain=True),
        query(users[1], 10, source_bounds={pb.SOURCE_INTEREST: SourceBounds(0, 0)}),
        query(users[2], 10, allow_categories=("no such category",)),
    ]
    together = await channel.recall_batch(queries, Deadline.after(DEADLINE))
    assert len({answer.response.recall_id for answer in together}) == len(queries)
    for asked, answer in zip(queries, together, strict=True):
        alone = await channel.recall(asked, Deadline.after(DEADLINE))
        assert answer.user.query == alone.user.query == asked
        assert answer.response.item_ids == alone.response.item_ids
        for name in ("scores", "relevance", "unexpectedness"):
            np.testing.assert_allclose(getattr(answer.response, name), getattr(alone.response, name), rtol=1e-4)
        for name in ("sources", "categories", "category_indexes", "source_statuses", "filter_counts", "warnings"):
            assert without_times(getattr(answer.response, name)) == without_times(getattr(alone.response, name))
        assert [reason.text for reason in answer.response.reasons] == [reason.text for reason in alone.response.reasons]
        assert answer.response.all_reason_indexes == alone.response.all_reason_indexes
        assert answer.response.titles == alone.response.titles
    assert await channel.recall_batch([], Deadline.after(DEADLINE)) == []


def without_times(columns: Iterable[object]) -> list[object]:
    found = []
    for value in columns:
        if isinstance(value, pb.SourceStatus):
            value = pb.SourceStatus.FromString(value.SerializeToString())
            value.ClearField("elapsed")
        found.append(value)
    return found


async def test_an_unknown_user_gets_a_cold_start(channel: Channel) -> None:
    response = await ask(channel, query("nobody", 10))
    assert codes(response) == [pb.WARNING_CODE_COLD_USER]
    assert len(response.item_ids) == 10
    assert not response.degraded
    assert set(response.unexpectedness) == {1.0}
    interest_texts = [reason.text for reason in response.reasons if reason.source == pb.SOURCE_INTEREST]
    assert all(text.startswith("Many people") for text in interest_texts)


@pytest.mark.parametrize(
    "error",
    [TowerUnavailable("refused"), TowerTimeout("too slow"), TowerAnswerInvalid("NaN")],
    ids=lambda error: type(error).__name__,
)
async def test_stored_vectors_stand_in_for_a_tower_that_is_away(small_world: SmallWorld, error: Exception) -> None:
    with a_channel(small_world.snapshot_dir, AwayTower(error)) as channel:
        response = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(response.item_ids) == 10
    assert list(response.degraded_reasons) == [f"user tower: {error}"]
    assert response.versions.user_tower == STORED_VECTORS
    assert states(response) == {pb.SOURCE_INTEREST: pb.SOURCE_STATE_OK, **OTHERS}


async def test_a_tower_of_other_dimensions_is_not_believed(small_world: SmallWorld) -> None:
    class Wider(AwayTower):
        async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> np.ndarray:
            return np.ones((len(inputs), 1 + inputs.interests.shape[1], 99), np.float32)

    with a_channel(small_world.snapshot_dir, Wider(TowerUnavailable(""))) as channel:
        response = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(response.item_ids) == 10
    assert "found 99 dimensions, expected 16" in response.degraded_reasons[0]


async def test_a_hanging_tower_leaves_time_for_the_search(small_world: SmallWorld) -> None:
    given: list[tuple[Deadline, float]] = []

    class Hanging(AwayTower):
        """Notes the time it would use up instead of waiting for its end."""

        async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> np.ndarray:
            given.append((deadline, time.monotonic()))
            raise TowerTimeout("hung")

    patient = ChannelSettings(max_deadline_ms=1_000 * DEADLINE)
    with a_channel(small_world.snapshot_dir, Hanging(TowerTimeout("")), settings=patient) as channel:
        start = time.monotonic()
        deadline = Deadline.after(DEADLINE)
        response = (await channel.recall(query(small_world.user_ids[0], 10), deadline)).response
    assert len(response.item_ids) == 10
    assert response.degraded
    ((budget, asked),) = given
    # 60 % of what was left at one moment, counted from the next: both lie between `start` and `asked`.
    assert 0.6 * deadline.at + 0.4 * start <= budget.at <= 0.6 * deadline.at + asked - 0.6 * start


async def test_without_tower_and_stored_vector_the_answer_is_empty_and_says_so(
    damaged: Callable[[str, bytes, bytes | None], Path],
) -> None:
    directory = damaged(layout.USERS, layout.DEFAULT_USER, None)
    with a_channel(directory, AwayTower(TowerUnavailable("refused"))) as channel:
        response = await ask(channel, query("nobody", 10))
    assert len(response.item_ids) == 0
    # Without a graph nothing can be searched that needs no vector.
    assert states(response) == {
        **dict.fromkeys(SOURCES, pb.SOURCE_STATE_UNAVAILABLE),
        pb.SOURCE_GRAPH: pb.SOURCE_STATE_EMPTY,
    }
    assert response.degraded


async def test_a_corrupt_user_record_is_a_degraded_cold_start(
    small_world: SmallWorld, local_tower: LocalTower, damaged: Callable[[str, bytes, bytes | None], Path]
) -> None:
    user_id = small_world.user_ids[0]
    with a_channel(damaged(layout.USERS, layout.user_key(user_id), b"\xff\xff"), local_tower) as channel:
        response = await ask(channel, query(user_id, 10))
    assert len(response.item_ids) == 10
    (reason,) = response.degraded_reasons
    assert "are no UserRecord" in reason
    assert reason.endswith("novelty is judged without it")
    # The file by its snapshot, not by where this machine keeps it.
    assert f"user record: {small_world.version}/users.lmdb: key" in reason
    assert str(small_world.root) not in reason


@pytest.mark.parametrize(
    ("record", "state", "degraded"),
    [
        (None, pb.SOURCE_STATE_EMPTY, False),
        (b"\xff\xff", pb.SOURCE_STATE_UNAVAILABLE, True),
        (
            records_pb2.InterestsRecord(
                node_ids=[0], weights=[1], generated_at=NOW, expires_at=NOW + 1
            ).SerializeToString(),
            pb.SOURCE_STATE_EMPTY,
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
    state: pb.SourceState,
    degraded: bool,
) -> None:
    user_id = small_world.user_ids[0]
    with a_channel(damaged(layout.INTERESTS, layout.user_key(user_id), record), local_tower) as channel:
        response = await ask(channel, query(user_id, 10))
    assert states(response) == {pb.SOURCE_INTEREST: state, **OTHERS}
    assert len(response.item_ids) == 10
    assert response.degraded is degraded


@pytest.mark.parametrize(
    ("days", "state"),
    [(5, pb.SOURCE_STATE_OK), (7, pb.SOURCE_STATE_STALE), (28, pb.SOURCE_STATE_STALE), (30, pb.SOURCE_STATE_EMPTY)],
)
async def test_interests_turn_stale_and_then_too_old(
    small_world: SmallWorld, local_tower: LocalTower, days: int, state: pb.SourceState
) -> None:
    with a_channel(small_world.snapshot_dir, local_tower) as channel:
        asked = RecallQuery(user_id=small_world.user_ids[0], count=10, now=NOW + days * DAY)
        response = await ask(channel, asked)
    assert states(response)[pb.SOURCE_INTEREST] == state
    assert not response.degraded


async def test_corrupt_paths_cost_only_their_sentences(
    small_world: SmallWorld, local_tower: LocalTower, damaged: Callable[[str, bytes, bytes | None], Path]
) -> None:
    user_id = small_world.user_ids[0]
    with a_channel(damaged(layout.INTEREST_PATHS, layout.user_key(user_id), b"\x0a\xff"), local_tower) as channel:
        response = await ask(channel, query(user_id, 10))
    assert len(response.item_ids) == 10
    assert response.degraded
    texts = {reason.text for reason in response.reasons if reason.source == pb.SOURCE_INTEREST}
    assert all(text.startswith("You may be curious about ") for text in texts)


@pytest.mark.parametrize("part", ["propose", "score"])
@pytest.mark.parametrize("broken_source", [pb.SOURCE_INTEREST, pb.SOURCE_COLLABORATIVE])
async def test_a_source_that_breaks_does_not_break_the_others(
    small_world: SmallWorld,
    channel: Channel,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    broken_source: pb.Source,
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    number = [source.source for source in CANDIDATE_SOURCES].index(broken_source)
    monkeypatch.setattr(CANDIDATE_SOURCES[number], part, broken)
    response = await ask(channel, query(small_world.user_ids[0], 10))
    assert states(response) == {
        pb.SOURCE_INTEREST: pb.SOURCE_STATE_OK,
        **OTHERS,
        broken_source: pb.SOURCE_STATE_UNAVAILABLE,
    }
    assert list(response.degraded_reasons) == [f"{source_name(broken_source)}: failed (MemoryError); the logs say why"]
    assert len(response.item_ids) == 10
    assert broken_source not in response.sources


async def test_a_search_that_hangs_times_out_and_holds_its_snapshot(
    small_world: SmallWorld, local_tower: LocalTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, finished = threading.Event(), threading.Event()
    propose = CANDIDATE_SOURCES[0].propose

    def slow(*arguments: object) -> object:
        release.wait(60)
        try:
            return propose(*arguments)  # type: ignore[arg-type]
        finally:
            finished.set()

    monkeypatch.setattr(CANDIDATE_SOURCES[0], "propose", slow)
    opened = open_snapshot(small_world.snapshot_dir)
    holder = SnapshotHolder(opened)
    # Of half a minute the search may take a third of a second: the tower has time.
    channel = Channel(holder, local_tower, settings=ChannelSettings(sources_share=0.01), clock=lambda: NOW)
    with pytest.raises(DeadlinePassed, match="no time was left to search"):
        await ask(channel, query(small_world.user_ids[0], 10))
    holder.close()
    # The thread still searches: the snapshot stays open until it is done.
    assert len(opened.users) > 0
    release.set()
    channel._thread.close(wait=True)
    assert finished.is_set()
    with pytest.raises(Exception, match="is closed"):
        len(opened.users)


async def test_a_search_that_hung_and_went_on_is_over_for_the_requests_after_it(
    small_world: SmallWorld, local_tower: LocalTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    propose = CANDIDATE_SOURCES[0].propose
    hanging = 1

    def slow(*arguments: object) -> object:
        nonlocal hanging
        if hanging:
            hanging -= 1
            release.wait(60)
        return propose(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CANDIDATE_SOURCES[0], "propose", slow)
    opened = open_snapshot(small_world.snapshot_dir)
    holder = SnapshotHolder(opened)
    hasty = ChannelSettings(sources_share=0.01)
    channel = Channel(holder, local_tower, settings=hasty, clock=lambda: NOW)
    asked = query(small_world.user_ids[0], 10)
    # Whoever waits behind it is too late, too, and lets the snapshot go.
    for _ in range(2):
        with pytest.raises(DeadlinePassed, match="no time was left to search"):
            await ask(channel, asked)
    release.set()
    answer = await channel.recall(asked, Deadline.after(50 * DEADLINE))
    assert len(answer.response.item_ids) == 10
    assert not answer.response.degraded
    holder.close()
    channel._thread.close(wait=True)
    with pytest.raises(Exception, match="is closed"):
        len(opened.users)


async def test_a_batch_that_hangs_while_reading_is_too_late(
    small_world: SmallWorld, local_tower: LocalTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    class Slow(UserState):
        def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
            release.wait(60)
            return None

    with a_channel(small_world.snapshot_dir, local_tower, Slow()) as channel:
        queries = [query(user_id, 10) for user_id in small_world.user_ids[:20]]
        found = await channel.recall_batch(queries, Deadline.after(0.3))
        release.set()
    assert {str(error) for error in found} == {"reading the records of 20 users took too long"}
    assert [type(error) for error in found] == [DeadlinePassed] * 20


async def test_what_was_answered_in_time_is_kept_and_the_rest_is_too_late_and_not_empty(
    small_world: SmallWorld, local_tower: LocalTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    searches = []
    propose = InterestSource.propose

    def hang_at_the_fourth(self: InterestSource, *arguments: Any) -> NDArray[np.int64]:
        searches.append(arguments)
        if len(searches) == 4:
            release.wait(60)
        return propose(self, *arguments)

    monkeypatch.setattr(InterestSource, "propose", hang_at_the_fourth)
    with a_channel(small_world.snapshot_dir, local_tower) as channel:
        queries = [query(user_id, 10) for user_id in small_world.user_ids[:6]]
        answers = await channel.recall_batch(queries, Deadline.after(2.0))
        release.set()
    whole = [answer for answer in answers if isinstance(answer, Answer)]
    assert [len(answer.response.item_ids) for answer in whole] == [10, 10, 10]
    assert [answer.user.query.user_id for answer in whole] == small_world.user_ids[:3]
    assert [type(error) for error in answers[3:]] == [DeadlinePassed] * 3


async def test_one_user_whose_answer_fails_does_not_fail_the_others(
    small_world: SmallWorld, local_tower: LocalTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = small_world.user_ids[1]

    def failing(snapshot: Snapshot, user: Hydrated, *arguments: Any) -> Found:
        if user.query.user_id == broken:
            raise ZeroDivisionError
        return search(snapshot, user, *arguments)

    monkeypatch.setattr("serendipity.channel.recall.recall.search", failing)
    with a_channel(small_world.snapshot_dir, local_tower) as channel:
        answers = await channel.recall_batch([query(each, 10) for each in small_world.user_ids[:3]], Deadline.after(60))
    assert [isinstance(answer, Answer) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], ZeroDivisionError)


def waiting(release: threading.Event) -> Iterator[None]:
    release.wait(60)
    yield


async def test_users_of_a_large_batch_are_read_though_the_search_thread_is_busy(
    small_world: SmallWorld, local_tower: LocalTower
) -> None:
    release = threading.Event()
    with a_channel(small_world.snapshot_dir, local_tower) as channel:
        channel._thread.submit(waiting(release), 0.0)
        queries = [query(user_id, 10) for user_id in small_world.user_ids[:20]]
        answers = await channel.recall_batch(queries, Deadline.after(1.0))
        release.set()
    assert {str(error) for error in answers} == {"no time was left to search"}


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
    response = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(response.item_ids) == 0
    assert set(states(response).values()) == {pb.SOURCE_STATE_EMPTY}
    assert not response.degraded
    assert (response.rank_features.num_rows, len(response.rank_features.values)) == (0, 0)
    assert list(response.all_reason_offsets) == [0]


async def test_an_allow_list_without_novel_categories_is_an_empty_answer(
    small_world: SmallWorld, channel: Channel
) -> None:
    clicked = small_world.contents.users["user-00"].click_categories[0]
    name = small_world.contents.catalogue.categories[clicked - 1]
    response = await ask(channel, query("user-00", 10, allow_categories=(name,)))
    assert len(response.item_ids) == 0
    assert set(states(response).values()) == {pb.SOURCE_STATE_EMPTY}


async def test_a_thousand_wanted_and_three_left_gives_three(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    catalogue = small_world.contents.catalogue
    keep = [i for i, up in enumerate(catalogue.available) if up and catalogue.item_categories[i]][:3]
    state.overlay = AvailabilityOverlay(1, {item_id: row in keep for row, item_id in enumerate(catalogue.item_ids)})
    response = await ask(channel, query("nobody", 1_000))
    assert sorted(response.item_ids) == sorted(catalogue.item_ids[row] for row in keep)


async def test_excluded_and_sold_out_items_are_not_returned_but_replaced(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    user_id = small_world.user_ids[0]
    first = await ask(channel, query(user_id, 10))
    second = await ask(channel, query(user_id, 10, exclude_item_ids=first.item_ids))
    assert len(second.item_ids) == 10
    assert not set(first.item_ids) & set(second.item_ids)
    assert removed(second, "excluded") >= 10
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
    assert removed(second, "served") == 5


@pytest.mark.parametrize("policy", [pb.NOVELTY_POLICY_OFF, pb.NOVELTY_POLICY_SOFT])
async def test_what_was_clicked_or_ordered_lately_is_not_repeated_unless_asked_for(
    small_world: SmallWorld, channel: Channel, state: State, policy: pb.NoveltyPolicy
) -> None:
    user_id = "user-01"
    before = await ask(channel, query(user_id, 10, novelty_policy=policy, allow_repeats=True))
    sent, fed, ordered, long_ago = before.item_ids[:4]
    state.record = records_pb2.UserFeedbackRecord(
        clicks=[
            pb.FeedbackEvent(item_id=fed, type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=NOW - 3_600)),
            pb.FeedbackEvent(item_id=long_ago, type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=NOW - 25 * 3_600)),
        ],
        # The small world's snapshot counts clicks alone.
        signals=[
            pb.FeedbackEvent(item_id=ordered, type=pb.EVENT_TYPE_ORDER, time=Timestamp(seconds=NOW - 60)),
            pb.FeedbackEvent(item_id=long_ago, type=pb.EVENT_TYPE_VIEW, time=Timestamp(seconds=NOW - 60)),
        ],
    )
    events = (RecentEvent(sent, pb.EVENT_TYPE_CLICK, NOW - 99 * DAY, ""),)
    allowed, left_out = [
        await ask(channel, query(user_id, 200, novelty_policy=policy, allow_repeats=repeats, recent_events=events))
        for repeats in (True, False)
    ]
    assert set(allowed.item_ids) - set(left_out.item_ids) >= {sent, fed, ordered}
    assert long_ago in left_out.item_ids
    assert (removed(allowed, "repeated"), removed(left_out, "repeated") >= 3) == (0, True)


async def test_state_that_cannot_be_read_degrades_the_answer(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    state.down = True
    response = await ask(channel, query(small_world.user_ids[0], 10))
    assert len(response.item_ids) == 10
    assert [reason.split(":")[0] for reason in response.degraded_reasons] == ["feedback", "availability"]


async def test_a_host_that_does_not_own_the_user_says_so(
    small_world: SmallWorld, channel: Channel, state: State
) -> None:
    state.owner = False
    response = await ask(channel, query(small_world.user_ids[0], 10))
    assert codes(response) == [pb.WARNING_CODE_NOT_OWNER]


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
    assert all(len(answer.item_ids) == 10 and not answer.degraded for answer in during)
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
    ("name", "source"), [("SOURCE_INTEREST", pb.SOURCE_INTEREST), ("SOURCE_COLLABORATIVE", pb.SOURCE_COLLABORATIVE)]
)
def test_quotas_bound_the_sources(
    small_world: SmallWorld, local_channel: LocalChannel, name: str, source: pb.Source
) -> None:
    request = pb.RecallRequest(user_id=small_world.user_ids[0], count=20)
    request.source_quotas.add(source=pb.Source.Value(name), max_count=0)
    response = local_channel.recall(request)
    assert len(response.item_ids) == 20
    assert source not in response.sources
    for least, most, returned in ((3, 4, {3, 4}), (12, 0, set(range(12, 21))), (20, 20, {20}), (0, 1, {0, 1})):
        del request.source_quotas[:]
        request.source_quotas.add(source=pb.Source.Value(name), min_count=least, max_count=most)
        response = local_channel.recall(request)
        # What one source may have no more of, the other found as well.
        assert len(response.item_ids) == 20
        assert list(response.sources).count(source) in returned
        assert list(response.scores) == sorted(response.scores, reverse=True)


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
