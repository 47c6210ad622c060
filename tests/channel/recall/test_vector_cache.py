"""A user who asks again has the vectors of a moment ago, until something happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerUnavailable
from serendipity.channel.recall.query import RecallQuery, RecentEvent
from serendipity.channel.recall.recall import STORED_VECTORS, Channel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.features import TowerInputs
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import NOW, SmallWorld


class CountingTower:
    """The small world's tower; counts the users it is asked for, and can be away."""

    def __init__(self, tower: LocalTower) -> None:
        self._tower = tower
        self.users = 0
        self.away = False

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray:
        self.users += len(inputs)
        if self.away:
            raise TowerUnavailable("away")
        return await self._tower.user_vectors(model_name, inputs, deadline)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def tower(local_tower: LocalTower) -> CountingTower:
    return CountingTower(local_tower)


@pytest.fixture
async def channel(snapshot: Snapshot, tower: CountingTower) -> AsyncIterator[Channel]:
    opened = Channel(SnapshotHolder(snapshot), tower, settings=ChannelSettings(user_vector_cache=3), clock=lambda: NOW)
    yield opened
    opened.close()


async def ask(channel: Channel, query: RecallQuery) -> pb.RecallResponse:
    return (await channel.recall(query, Deadline.after(60))).response


async def test_whoever_asks_again_has_the_same_answer_without_the_tower(
    small_world: SmallWorld, channel: Channel, tower: CountingTower
) -> None:
    query = RecallQuery(small_world.user_ids[0], 10, now=NOW)
    first = await ask(channel, query)
    again = await ask(channel, query)
    assert (list(again.item_ids), list(again.scores)) == (list(first.item_ids), list(first.scores))
    assert not again.degraded
    # Neither how much is asked for nor what is excluded is told to the tower.
    await ask(channel, replace(query, count=5, exclude_item_ids=(first.item_ids[0],)))
    assert tower.users == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"recent_events": (RecentEvent("item-007", pb.EVENT_TYPE_CLICK, NOW, ""),)},
        {"profile": {"age": "2"}},
        {"now": NOW + 3_600},
        {"recent_events": (RecentEvent("item-009", pb.EVENT_TYPE_CLICK, NOW - 86_400, ""),)},
        {"user_id": "nobody"},
    ],
)
async def test_whatever_the_tower_is_told_anew_is_asked_anew(
    small_world: SmallWorld, channel: Channel, tower: CountingTower, changed: dict[str, object]
) -> None:
    query = RecallQuery(small_world.user_ids[1], 10, now=NOW - NOW % 3_600)
    await ask(channel, query)
    await ask(channel, replace(query, **changed))  # type: ignore[arg-type]
    assert tower.users == 2


async def test_two_users_who_clicked_the_same_at_different_times_have_vectors_of_their_own(
    channel: Channel, tower: CountingTower
) -> None:
    answers = []
    for user_id, ages in (("stranger-a", (5, 600)), ("stranger-b", (100 * 86_400, 200 * 86_400))):
        events = tuple(
            RecentEvent(f"item-{i:03d}", pb.EVENT_TYPE_CLICK, NOW - age, "")
            for i, age in zip((7, 200), ages, strict=True)
        )
        answers.append(await ask(channel, RecallQuery(user_id, 10, now=NOW, recent_events=events)))
    assert tower.users == 2
    assert list(answers[0].relevance) != list(answers[1].relevance)


async def test_time_alone_asks_nothing_anew_within_the_hour(
    small_world: SmallWorld, channel: Channel, tower: CountingTower
) -> None:
    start = NOW - NOW % 3_600
    for now in (start, start + 5, start + 3_599):
        await ask(channel, RecallQuery(small_world.user_ids[2], 10, now=now))
    assert tower.users == 1


async def test_those_asked_for_longest_ago_go(small_world: SmallWorld, channel: Channel, tower: CountingTower) -> None:
    queries = [RecallQuery(user_id, 10, now=NOW) for user_id in small_world.user_ids[:4]]
    for query in (*queries[:3], queries[0], queries[3]):
        await ask(channel, query)
    assert tower.users == 4
    await ask(channel, queries[0])
    assert tower.users == 4
    await ask(channel, queries[1])
    assert tower.users == 5


async def test_of_a_batch_only_those_not_known_are_asked_for(
    small_world: SmallWorld, channel: Channel, tower: CountingTower
) -> None:
    queries = [RecallQuery(user_id, 10, now=NOW) for user_id in small_world.user_ids[:3]]
    await ask(channel, queries[1])
    tower.away = True
    answers = await channel.recall_batch(queries, Deadline.after(60))
    assert tower.users == 3
    # Those who are known are not degraded by the tower's absence.
    assert [answer.response.degraded for answer in answers] == [True, False, True]
    assert answers[0].response.versions.user_tower == STORED_VECTORS
    assert answers[1].response.versions.user_tower == small_world.tower.model_name


async def test_stored_vectors_are_not_kept(small_world: SmallWorld, channel: Channel, tower: CountingTower) -> None:
    query = RecallQuery(small_world.user_ids[0], 10, now=NOW)
    tower.away = True
    assert (await ask(channel, query)).degraded
    tower.away = False
    assert not (await ask(channel, query)).degraded


async def test_a_cache_of_none_asks_every_time(
    snapshot: Snapshot, tower: CountingTower, small_world: SmallWorld
) -> None:
    channel = Channel(SnapshotHolder(snapshot), tower, settings=ChannelSettings(user_vector_cache=0), clock=lambda: NOW)
    for _ in range(3):
        await ask(channel, RecallQuery(small_world.user_ids[0], 10, now=NOW))
    assert tower.users == 3
    channel.close()
