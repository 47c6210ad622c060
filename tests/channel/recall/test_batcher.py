"""Queries that come together are answered together; none waits for nothing, none suffers for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed, Overloaded
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.batcher import Asked, Batcher
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.query import RecallQuery
from serendipity.v1 import channel_pb2


class Held:
    """Answers a batch when it is let go; an answer is the id of the user it is for, or what is wrong with that user."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.deadlines: list[Deadline] = []
        self.free = asyncio.Event()
        self.wrong: dict[str, Exception] = {}

    async def answer_all(self, asked: Sequence[Asked], deadline: Deadline) -> Sequence[Answer | Exception]:
        users = [each.query.user_id for each in asked]
        self.batches.append(users)
        self.deadlines.append(deadline)
        await self.free.wait()
        return [self.wrong.get(user) or cast(Answer, f"answer of {user}") for user in users]


def asking(batcher: Batcher, users: Sequence[str], seconds: float = 60.0) -> list[asyncio.Task[Answer]]:
    return [
        asyncio.create_task(batcher.answer(RecallQuery(user, 10, now=0), Deadline.after(seconds))) for user in users
    ]


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_lone_query_goes_at_once_and_alone() -> None:
    held = Held()
    held.free.set()
    batcher = Batcher(held.answer_all)
    for user in "abc":
        assert await asking(batcher, [user])[0] == f"answer of {user}"
    assert held.batches == [["a"], ["b"], ["c"]]


async def test_what_comes_while_two_batches_are_under_way_gathers_for_the_next() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    users = [f"user-{i:02d}" for i in range(24)]
    asked = asking(batcher, users)
    await settled()
    assert held.batches == [users[:1], users[1:2]]
    held.free.set()
    assert await asyncio.gather(*asked) == [f"answer of {user}" for user in users]
    # Each once, in the order they came, sixteen at a time.
    assert [len(batch) for batch in held.batches] == [1, 1, 16, 6]
    assert [user for batch in held.batches for user in batch] == users


async def test_the_hurried_come_first_and_do_not_cut_the_others_short() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"], seconds=10.0)
    patient, hurried = asking(batcher, ["c", "d"], seconds=60.0), asking(batcher, ["e"], seconds=20.0)
    await settled()
    held.free.set()
    await asyncio.gather(*first, *patient, *hurried)
    assert held.batches[2:] == [["e"], ["c", "d"]]
    assert held.deadlines[3].remaining > 30.0


async def test_who_has_less_time_than_all_under_way_need_not_wait_for_them() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    patient = asking(batcher, ["a", "b", "c"], seconds=60.0)
    await settled()
    hurried = asking(batcher, ["d"], seconds=5.0)
    await settled()
    assert held.batches == [["a"], ["b"], ["d"]]
    # Nor do many of them: two places are theirs.
    more = asking(batcher, ["e"], seconds=4.0) + asking(batcher, ["f"], seconds=3.0)
    await settled()
    assert held.batches[3:] == [["e"]]
    held.free.set()
    await asyncio.gather(*patient, *hurried, *more)
    assert held.batches[4:] == [["f"], ["c"]]


def test_a_query_that_comes_without_time_is_refused_at_once() -> None:
    held = Held()
    with pytest.raises(DeadlinePassed):
        Batcher(held.answer_all).admit(Deadline.after(0.0))


async def test_a_query_whose_time_passes_while_it_waits_is_refused_and_the_others_are_answered() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"], seconds=0.01)
    late, others = asking(batcher, ["c"], seconds=0.02), asking(batcher, ["d"])
    await settled()
    await asyncio.sleep(0.03)
    held.free.set()
    await asyncio.gather(*first, *others)
    with pytest.raises(DeadlinePassed):
        await late[0]
    assert held.batches[2:] == [["d"]]


async def test_a_query_behind_more_than_can_be_answered_in_its_time_is_refused_on_arrival() -> None:
    async def slowly(asked: Sequence[Asked], _: Deadline) -> Sequence[Answer]:
        await asyncio.sleep(0.05)
        return [cast(Answer, each.query.user_id) for each in asked]

    batcher = Batcher(slowly)
    # Some 640 users a second, learned from the first of them.
    await asyncio.gather(*asking(batcher, [f"user-{i}" for i in range(100)]))
    queue = asking(batcher, [f"user-{i}" for i in range(700)], seconds=1.0)
    await settled()
    with pytest.raises(Overloaded, match=r"busy: found \d+ ms left, expected at least \d+ ms") as refused:
        batcher.admit(Deadline.after(1.0))
    assert 0 < refused.value.retry_after <= 1.0
    # Whoever has the time is admitted.
    batcher.admit(Deadline.after(60.0))
    ends = {type(end) for end in await asyncio.gather(*queue, return_exceptions=True)}
    assert ends <= {str, Overloaded, DeadlinePassed}


async def test_nothing_is_done_for_callers_that_have_gone() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"])
    gone, stays = asking(batcher, ["c"]), asking(batcher, ["d"])
    await settled()
    gone[0].cancel()
    await settled()
    held.free.set()
    await asyncio.gather(*first, *stays)
    assert held.batches[2:] == [["d"]]


async def test_what_is_wrong_with_one_query_does_not_fail_its_neighbours() -> None:
    held = Held()
    held.wrong["d"] = RuntimeError("broken")
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"])
    rest = asking(batcher, ["c", "d", "e"])
    await settled()
    held.free.set()
    await asyncio.gather(*first)
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert [found[0], found[2]] == ["answer of c", "answer of e"]
    assert isinstance(found[1], RuntimeError)


async def test_batches_that_hang_do_not_keep_the_others_waiting() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    hung = asking(batcher, ["a", "b"])
    await settled()
    behind = asking(batcher, ["c", "d"])
    async with asyncio.timeout(30):
        while len(held.batches) < 3:
            await asyncio.sleep(0.001)
    assert held.batches[2] == ["c", "d"]
    held.free.set()
    await asyncio.gather(*hung, *behind)


async def test_an_answer_too_few_fails_and_hangs_nobody() -> None:
    async def too_few(asked: Sequence[Asked], _: Deadline) -> Sequence[Answer]:
        return [cast(Answer, "one")] * (len(asked) - 1)

    found = await asyncio.gather(*asking(Batcher(too_few), ["a", "b", "c"]), return_exceptions=True)
    assert [type(error) for error in found] == [ValueError] * 3


async def test_callers_end_when_what_answers_them_is_stopped() -> None:
    async def stopped(asked: Sequence[Asked], _: Deadline) -> Sequence[Answer]:
        raise asyncio.CancelledError

    found = await asyncio.gather(*asking(Batcher(stopped), ["a", "b", "c"]), return_exceptions=True)
    assert [type(error) for error in found] == [asyncio.CancelledError] * 3


async def test_what_a_tower_that_hangs_took_is_held_against_nobody() -> None:
    without_tower = Answer(channel_pb2.RecallResponse(), cast(Hydrated, None), without_tower=True)

    async def hang(asked: Sequence[Asked], _: Deadline) -> Sequence[Answer]:
        while not all(batch.hangs for batch in batcher._under_way.values()):
            await asyncio.sleep(0.001)
        return [without_tower] * len(asked)

    batcher = Batcher(hang)
    await asyncio.gather(*asking(batcher, ["a", "b", "c", "d"]))
    assert batcher._pace.seconds_each == 0
