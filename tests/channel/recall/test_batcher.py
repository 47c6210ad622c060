"""Queries that come together are answered together; none waits for nothing, none suffers for another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed, SnapshotUnavailable
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.batcher import Asked, Batcher
from serendipity.channel.recall.query import RecallQuery


class Held:
    """Answers a batch when it is let go; an answer is the id of the user it is for."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.deadlines: list[Deadline] = []
        self.free = asyncio.Event()
        self.poisoned = ""
        self.error: Exception = RuntimeError("broken")

    async def answer_all(self, asked: Sequence[Asked], deadline: Deadline) -> Sequence[Answer]:
        users = [each.query.user_id for each in asked]
        self.batches.append(users)
        self.deadlines.append(deadline)
        await self.free.wait()
        if self.poisoned in users:
            raise self.error
        return [cast(Answer, f"answer of {user}") for user in users]


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
    users = [f"user-{i:02d}" for i in range(14)]
    asked = asking(batcher, users)
    await settled()
    assert held.batches == [users[:1], users[1:2]]
    held.free.set()
    assert await asyncio.gather(*asked) == [f"answer of {user}" for user in users]
    # Each once, in the order they came, eight at a time.
    assert [len(batch) for batch in held.batches] == [1, 1, 8, 4]
    assert [user for batch in held.batches for user in batch] == users


async def test_a_hurried_query_does_not_cut_the_others_short() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"])
    patient, hurried = asking(batcher, ["c", "d"], seconds=60.0), asking(batcher, ["e"], seconds=20.0)
    await settled()
    held.free.set()
    await asyncio.gather(*first, *patient, *hurried)
    assert held.batches[2:] == [["c", "d"], ["e"]]
    assert held.deadlines[2].remaining > 30.0


async def test_a_query_whose_time_is_over_is_refused_and_the_others_answered() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"])
    late, others = asking(batcher, ["c"], seconds=0.0), asking(batcher, ["d"], seconds=0.0005)
    await settled()
    held.free.set()
    await asyncio.gather(*first)
    with pytest.raises(DeadlinePassed):
        await late[0]
    await asyncio.wait(others)
    assert ["c"] not in held.batches


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


async def test_one_broken_query_does_not_fail_its_neighbours() -> None:
    held = Held()
    held.poisoned = "d"
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"])
    rest = asking(batcher, ["c", "d", "e"])
    await settled()
    held.free.set()
    await asyncio.gather(*first)
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert [found[0], found[2]] == ["answer of c", "answer of e"]
    assert isinstance(found[1], RuntimeError)


async def test_what_concerns_all_is_told_to_all_without_another_try() -> None:
    held = Held()
    held.poisoned, held.error = "c", SnapshotUnavailable("no snapshot is loaded")
    batcher = Batcher(held.answer_all)
    first = asking(batcher, ["a", "b"])
    rest = asking(batcher, ["c", "d"])
    await settled()
    held.free.set()
    await asyncio.gather(*first)
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(error) for error in found] == [SnapshotUnavailable] * 2
    assert held.batches[2:] == [["c", "d"]]


async def test_batches_that_hang_keep_the_others_waiting_for_a_part_of_their_time_only() -> None:
    held = Held()
    batcher = Batcher(held.answer_all)
    hung = asking(batcher, ["a", "b"])
    await settled()
    behind = asking(batcher, ["c", "d"], seconds=0.5)
    async with asyncio.timeout(30):
        while len(held.batches) < 3:
            await asyncio.sleep(0.001)
    assert held.batches[2] == ["c", "d"]
    assert held.deadlines[2].remaining > 0
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
