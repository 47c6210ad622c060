"""Answers queries together that come while others are being answered: a batch costs half as much a user.

A lone query never waits. While one batch is at the user tower another can be searched for, so two are under way at a
time; what comes meanwhile gathers for the next, the most urgent first. Who has less time than all that are under way
need not wait for them. A query that cannot be answered in time is refused as soon as that is known: under overload,
answering those that can still be answered in time is all there is to win.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from bisect import bisect_right, insort
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.pace import Pace
from serendipity.channel.recall.query import RecallQuery

_UNDER_WAY = 2
_HURRIED_UNDER_WAY = 2
"""Besides, of those who have less time than all that were under way when they came."""
_GO_TOGETHER = 1.5
"""Most that the time left of one may be of that of another in a batch: all are answered by the time of the first."""
_HANGS_AFTER = 5.0
_HANGS_AFTER_SECONDS = 0.25
"""A batch that takes so many times as long as usual, and so long at least, no longer keeps the next from beginning: the
user tower hangs. It refuses calls of its own once too many are running."""


@dataclass(frozen=True)
class Asked:
    """A query and when it was asked. at: `time.perf_counter`."""

    query: RecallQuery
    at: float = field(default_factory=time.perf_counter)


AnswerAll = Callable[[Sequence[Asked], Deadline], Awaitable[Sequence[Answer | Exception]]]


@dataclass(frozen=True, eq=False)
class _Waiting:
    """seconds: that it had when it came; context: what its log lines and its trace are known by."""

    asked: Asked
    deadline: Deadline
    seconds: float
    has_waited: bool
    answer: asyncio.Future[Answer]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def end(self, answer: Answer | Exception) -> None:
        """Tell the caller, if it still waits."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


@dataclass
class _UnderWay:
    due: float
    size: int
    begun: float = field(default_factory=time.monotonic)
    hangs: bool = False
    without_tower: bool = False


class Batcher:
    """Gathers single queries into batches. Belongs to one event loop."""

    def __init__(self, answer_all: AnswerAll) -> None:
        """answer_all: answers several queries by one deadline, in their order; of each an answer, or why not."""
        self._answer_all = answer_all
        self._waiting: list[_Waiting] = []
        self._under_way: dict[asyncio.Task[None], _UnderWay] = {}
        self._pace = Pace()

    def admit(self, deadline: Deadline) -> None:
        """Raise DeadlinePassed or Overloaded if a query that comes now cannot be answered in time."""
        if deadline.expired:
            raise DeadlinePassed("no time was left to begin")
        if self._must_wait(deadline):
            self._pace.admit(bisect_right(self._waiting, deadline.at, key=_due), deadline)

    async def answer(self, query: RecallQuery, deadline: Deadline) -> Answer:
        """Answer one query, alone or with others.

        Raises what answering it raises, and DeadlinePassed or Overloaded when its turn comes too late.
        """
        future = asyncio.get_running_loop().create_future()
        own = _Waiting(Asked(query), deadline, deadline.remaining, self._must_wait(deadline), future)
        insort(self._waiting, own, key=_due)
        self._begin()
        try:
            return await own.answer
        except asyncio.CancelledError:
            # Whoever comes next must not be told to wait for a caller that has gone.
            if own in self._waiting:
                self._waiting.remove(own)
            raise

    def _must_wait(self, deadline: Deadline) -> bool:
        dues = [batch.due for batch in self._under_way.values() if not batch.hangs]
        return len(dues) >= _UNDER_WAY + (_HURRIED_UNDER_WAY if deadline.at < min(dues, default=0.0) else 0)

    def _begin(self) -> None:
        while self._waiting and not self._must_wait(self._waiting[0].deadline):
            if not (together := self._next()):
                continue
            batch = _UnderWay(_due(together[0]), len(together))
            task = asyncio.create_task(self._run(together, batch), context=together[0].context)
            self._under_way[task] = batch
            usual = len(together) * self._pace.seconds_each
            hangs_after = max(_HANGS_AFTER_SECONDS, _HANGS_AFTER * usual)
            timer = asyncio.get_running_loop().call_later(hangs_after, self._let_hang, batch)
            task.add_done_callback(partial(self._end, timer))

    def _next(self) -> list[_Waiting]:
        """Take the most urgent that can still be answered, and those that go with it; refuse what cannot."""
        together: list[_Waiting] = []
        while self._waiting and (not together or len(together) < self._pace.batch_size(together[0].seconds)):
            own = self._waiting[0]
            if together and own.deadline.remaining > _GO_TOGETHER * together[0].deadline.remaining:
                break
            del self._waiting[0]
            if own.answer.done():
                continue
            if own.has_waited and (error := self._pace.too_late(own.deadline, own.seconds)):
                own.end(error)
            else:
                together.append(own)
        return together

    def _let_hang(self, batch: _UnderWay) -> None:
        batch.hangs = True
        self._begin()

    def _end(self, timer: asyncio.TimerHandle, task: asyncio.Task[None]) -> None:
        timer.cancel()
        batch = self._under_way.pop(task)
        # What a tower that hangs took is told to no other: the next batch may do without it at once.
        if not (batch.hangs and batch.without_tower):
            self._pace.note(time.monotonic() - batch.begun, batch.size, others_wait=bool(self._waiting))
        self._begin()

    async def _run(self, together: Sequence[_Waiting], batch: _UnderWay) -> None:
        left = [own for own in together if not own.answer.done()]
        if not left:
            # Nobody waits for them any more: their callers have gone.
            return
        try:
            answers = await self._answer_all([own.asked for own in left], left[0].deadline)
            batch.without_tower = any(isinstance(answer, Answer) and answer.without_tower for answer in answers)
            for own, answer in zip(left, answers, strict=True):
                own.end(answer)
        except asyncio.CancelledError:
            for own in left:
                own.answer.cancel()
            raise
        except Exception as error:
            for own in left:
                own.end(error)


def _due(waiting: _Waiting) -> float:
    return waiting.deadline.at
