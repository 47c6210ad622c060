"""Answers queries together that come while others are being answered: a batch costs half as much a user.

A lone query never waits. While one batch is at the user tower another can be searched for, so two are under way at a
time; what comes meanwhile gathers for the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import ChannelError, DeadlinePassed
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.query import RecallQuery

_UNDER_WAY = 2
_WAITING_SHARE = 0.3
"""Part of its time that a query waits at most for those under way."""
_TOGETHER = 8
"""Queries of a batch at most: with more, the first would wait long for the last."""


@dataclass(frozen=True)
class Asked:
    """A query and when it was asked. at: `time.perf_counter`."""

    query: RecallQuery
    at: float = field(default_factory=time.perf_counter)


AnswerAll = Callable[[Sequence[Asked], Deadline], Awaitable[Sequence[Answer]]]


@dataclass(frozen=True, eq=False)
class _Waiting:
    asked: Asked
    deadline: Deadline
    answer: asyncio.Future[Answer]

    def goes_with(self, other: _Waiting) -> bool:
        """Tell whether both have about as much time left: the hurried must not cut the others short."""
        return 0.5 <= max(self.deadline.remaining, 1e-3) / max(other.deadline.remaining, 1e-3) <= 2.0


class Batcher:
    """Gathers single queries into batches. Belongs to one event loop."""

    def __init__(self, answer_all: AnswerAll) -> None:
        """answer_all: answers several queries by one deadline, in their order."""
        self._answer_all = answer_all
        self._waiting: list[_Waiting] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def answer(self, query: RecallQuery, deadline: Deadline) -> Answer:
        """Answer one query, alone or with others. Raises what answering it raises, and DeadlinePassed."""
        loop = asyncio.get_running_loop()
        own = _Waiting(Asked(query), deadline, loop.create_future())
        self._waiting.append(own)
        self._begin()
        if own not in self._waiting:
            return await own.answer
        # Batches that hang must not take the time of those behind them.
        overdue = loop.call_later(deadline.remaining * _WAITING_SHARE, self._begin, own)
        try:
            return await own.answer
        finally:
            overdue.cancel()

    def _begin(self, overdue: _Waiting | None = None) -> None:
        while self._waiting and (len(self._under_way) < _UNDER_WAY or overdue in self._waiting):
            first = self._waiting[0]
            together = [own for own in self._waiting if own.goes_with(first)][:_TOGETHER]
            self._waiting = [own for own in self._waiting if own not in together]
            task = asyncio.ensure_future(self._run(together))
            self._under_way.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    async def _run(self, together: Sequence[_Waiting]) -> None:
        for own in together:
            if own.deadline.expired and not own.answer.done():
                own.answer.set_exception(DeadlinePassed("no time was left to read the user's records"))
        # Nobody waits for the others any more: their callers have gone.
        left = [own for own in together if not own.answer.done()]
        if not left:
            return
        try:
            deadline = min((own.deadline for own in left), key=lambda each: each.at)
            answers = await self._answer_all([own.asked for own in left], deadline)
            for own, answer in zip(left, answers, strict=True):
                if not own.answer.done():
                    own.answer.set_result(answer)
        except asyncio.CancelledError:
            for own in left:
                own.answer.cancel()
            raise
        except ChannelError as error:
            _fail(left, error)
        except Exception as error:
            # Whatever is wrong with one of them must not fail its neighbours.
            if len(left) == 1:
                _fail(left, error)
            else:
                for own in left:
                    await self._run([own])


def _fail(waiting: Sequence[_Waiting], error: Exception) -> None:
    for own in waiting:
        if not own.answer.done():
            own.answer.set_exception(error)
