"""From users without a group to their records, with an encoder that answers as it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.channel.errors import ModelRefused, ModelUnavailable, SnapshotUnavailable
from serendipity.channel.nearline.context import ReadFeedback
from serendipity.channel.nearline.group_job import GroupEncoder, GroupJob, Sequenced
from serendipity.channel.nearline.loop import BatchDone, NearlineLoop
from serendipity.channel.nearline.outcome import Unneeded
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.layout import user_key
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.grouped_world import GROUP_MODEL, MIN_CLICKS, group_spec, make_grouped_world
from tests.fixtures.nearline_store import loop_of, spoil
from tests.fixtures.small_world import NOW, SmallWorld

REFUSED = 7
"""An item that the encoder refuses, as row + 1."""


class ScriptedEncoder(GroupEncoder):
    """Puts everybody into the group of the latest item's remainder; refuses one item; is away when told."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1")
        self.is_away = False
        self.seen: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = []

    async def assign(
        self,
        spec: records_pb2.GroupSpec,
        sequences: NDArray[np.int64],
        profiles: NDArray[np.int32],
        timeout: float,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        if self.is_away:
            raise ModelUnavailable("away")
        if (sequences == REFUSED).any():
            raise ModelRefused("an unknown item")
        self.seen.append((sequences, profiles))
        groups = (1 + sequences[:, -1] % spec.num_groups).astype(np.int32)
        return np.stack([groups - 1, groups - 1], axis=1), groups


@dataclass
class Parts:
    """A loop, its job and all it works with. feedback: acknowledged clicks of users."""

    store: NearlineStore
    loop: NearlineLoop[Sequenced]
    model: GroupJob
    encoder: ScriptedEncoder
    forgotten: set[str]
    feedback: dict[str, records_pb2.UserFeedbackRecord]

    def clicks(self, user_id: str, rows: list[int]) -> None:
        """Let a user click items by row, newest first."""
        events = []
        for age, row in enumerate(rows):
            item_id = self.model.snapshot.item_ids[row]
            event = channel_pb2.FeedbackEvent(event_id=f"{user_id}-{age}", item_id=item_id)
            event.time.seconds = NOW + 100 - age
            events.append(event)
        self.feedback[user_id] = records_pb2.UserFeedbackRecord(clicks=events)

    async def assign(self, *user_ids: str) -> BatchDone:
        for user_id in user_ids:
            self.store.want_group(user_id, MIN_CLICKS)
        assert self.store.flush(10)
        return await self.loop.work(self.store.queue(Kind.GROUPS).take(100, NOW), self.model, NOW)


@pytest.fixture(scope="module")
def grouped_snapshot(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    opened = open_snapshot(make_grouped_world(small_world, tmp_path_factory.mktemp("grouped")).snapshot_dir)
    yield opened
    opened.close()


@pytest.fixture
def parts(grouped_snapshot: Snapshot, tmp_path: Path) -> Iterator[Parts]:
    feedback: dict[str, records_pb2.UserFeedbackRecord] = {}
    encoder, forgotten = ScriptedEncoder(), set[str]()
    model = job(grouped_snapshot, grouped_snapshot.group_spec, feedback.get, encoder)
    with NearlineStore(tmp_path / "nearline", map_bytes=1 << 24, commit_interval=0, clock=lambda: NOW) as store:
        yield Parts(store, loop_of(store, Kind.GROUPS, forgotten.__contains__), model, encoder, forgotten, feedback)


def job(
    snapshot: Snapshot,
    spec: records_pb2.GroupSpec | None,
    feedback: ReadFeedback = lambda _: None,
    encoder: GroupEncoder | None = None,
) -> GroupJob:
    assert spec is not None
    return GroupJob(snapshot, spec, feedback, encoder or ScriptedEncoder(), timeout=5.0)


def read(job: GroupJob, user_id: str) -> Sequenced:
    """A user as the encoder takes one."""
    found = job.read(records_pb2.NearlineEntry(user_id=user_id), NOW)
    assert not isinstance(found, Unneeded)
    return found


async def test_a_cold_user_gets_a_group_once_feedback_holds_enough_clicks(parts: Parts) -> None:
    parts.clicks("cold", list(range(40, 40 + MIN_CLICKS - 1)))
    assert (await parts.assign("cold")).ends == Counter(unneeded=1)
    assert parts.store.group("cold") is None
    parts.clicks("warm", list(range(40, 40 + MIN_CLICKS)))
    assert (await parts.assign("warm")).ends == Counter(completed=1)
    group = parts.store.group("warm")
    assert group is not None
    assert (group.group_id, list(group.csid)) == (1 + 41 % 4, [41 % 4] * 2)
    assert (group.group_model_id, group.generated_at) == (GROUP_MODEL, NOW)


async def test_the_encoder_is_fed_the_latest_kept_clicks_oldest_first(parts: Parts) -> None:
    rows = [int(row) for row in np.random.default_rng(3).permutation(300)[:60] if row + 1 != REFUSED]
    parts.clicks("user", rows)
    await parts.assign("user")
    ((sequences, profiles),) = parts.encoder.seen
    length = parts.model.spec.sequence_length
    np.testing.assert_array_equal(sequences, [[row + 1 for row in rows[:length]][::-1]])
    np.testing.assert_array_equal(profiles, [[0]])


async def test_snapshot_and_feedback_are_looked_at_together(parts: Parts, small_world: SmallWorld) -> None:
    user = next(u for u in small_world.user_ids if 5 <= len(small_world.clicks(u)) < MIN_CLICKS)
    stored = small_world.clicks(user).items.tolist()
    parts.clicks(user, list(range(200, 200 + MIN_CLICKS - len(stored))))
    sequence, _ = read(parts.model, user)
    expected = [*range(201, 201 + MIN_CLICKS - len(stored)), *stored][::-1]
    np.testing.assert_array_equal(sequence[-MIN_CLICKS:], expected)
    assert np.count_nonzero(sequence) == MIN_CLICKS


def test_profile_values_are_numbered_as_the_encoder_numbers_them(
    grouped_snapshot: Snapshot, small_world: SmallWorld
) -> None:
    spec = group_spec()
    spec.profile_fields.add(name="area", values=["south", "elsewhere", "north"])
    spec.profile_fields.add(name="income", values=["high"])
    spec.profile_fields.add(name="age", values=["2", "1"])
    spec.min_clicks = 0
    model = job(grouped_snapshot, spec)
    profiles = [read(model, user)[1].tolist() for user in small_world.user_ids[:3]]
    assert profiles == [[1, 0, 0], [3, 0, 2], [1, 0, 1]]
    assert read(model, "nobody")[1].tolist() == [0, 0, 0]


async def test_who_has_a_group_of_this_model_is_not_asked_about_again(parts: Parts) -> None:
    parts.clicks("user", list(range(40, 60)))
    await parts.assign("user")
    assert (await parts.assign("user")).ends == Counter(unneeded=1)
    assert len(parts.encoder.seen) == 1


async def test_a_group_the_model_does_not_have_is_assigned_anew_or_left_in_peace(parts: Parts) -> None:
    users = ("user", "seldom")
    parts.clicks("user", list(range(40, 60)))
    parts.clicks("seldom", list(range(40, 40 + MIN_CLICKS)))
    await parts.assign(*users)
    with parts.store.env.writing() as txn:
        for user in users:
            beyond = records_pb2.UserGroupRecord(group_id=99, group_model_id=GROUP_MODEL, generated_at=NOW)
            parts.store.put(txn, user_key(user), beyond)
    parts.clicks("seldom", [40])
    assert (await parts.assign(*users)).ends == Counter(completed=1, unneeded=1)
    group = parts.store.group("user")
    assert group is not None
    assert 1 <= group.group_id <= parts.model.spec.num_groups


async def test_the_history_that_spoils_a_batch_is_found(parts: Parts) -> None:
    for user in range(8):
        parts.clicks(f"user-{user}", [*range(40 + user, 60 + user), *([REFUSED - 1] if user == 5 else [])])
    done = await parts.assign(*parts.feedback)
    assert done.ends == Counter(completed=7, failed=1)
    assert parts.store.group("user-5") is None


async def test_while_triton_is_away_nothing_counts_against_anybody(parts: Parts) -> None:
    parts.clicks("user", list(range(40, 60)))
    parts.encoder.is_away = True
    with pytest.raises(ModelUnavailable):
        await parts.assign("user")
    (entry,) = parts.store.queue(Kind.GROUPS).take(10, NOW)
    assert entry.attempts == 0


async def test_forgotten_users_are_skipped_and_all_of_them_goes(parts: Parts) -> None:
    parts.clicks("user", list(range(40, 60)))
    await parts.assign("user")
    parts.forgotten.add("user")
    done = await parts.assign("user")
    assert (done.ends, done.asked) == (Counter(forgotten=1), 0)
    assert parts.store.group("user") is None
    assert parts.store.queue(Kind.GROUPS).take(10, NOW) == []


def test_a_spec_that_counts_what_is_unknown_is_refused(grouped_snapshot: Snapshot) -> None:
    spec = group_spec()
    spec.counted = "brand"
    with pytest.raises(SnapshotUnavailable, match="counted: found 'brand', expected one of"):
        job(grouped_snapshot, spec)


async def test_a_stored_group_that_cannot_be_decoded_is_assigned_anew_with_the_others(parts: Parts) -> None:
    users = ("one", "broken", "other")
    for user in users:
        parts.clicks(user, list(range(40, 60)))
    spoil(parts.store, parts.store.records[Kind.GROUPS][0], user_key("broken"))
    assert (await parts.assign(*users)).ends == Counter(completed=3)
    assert all(parts.store.group(user) is not None for user in users)
