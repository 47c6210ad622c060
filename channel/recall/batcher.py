"""Answers queries together that come while others are being answered: a batch costs half as much a user.

A lone query never waits. While one batch is at the user tower another can be searched for, so two are under way at a
time; what comes meanwhile gathers for the next. A query that would have to wait longer than leaves it the time to be
answered is refused at once: under overload, answering those that can still be answered in time is all there is to win.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.pace import Pace
from serendipity.channel.recall.query import RecallQuery

_UNDER_WAY = 2
_TOGETHER = 16
"""Queries of a batch at most: with more, the first would wait long for the last."""
_HANGS_AFTER = 5.0
_HANGS_AFTER_SECONDS = 0.05
"""A batch that takes so many times as long as usual, and so long at least, no longer keeps the next from beginning. How
many can hang is bounded by the user tower, which refuses once too many calls are running."""


@dataclass(frozen=True)
class Asked:
    """A query and when it was asked. at: `time.perf_counter`."""

    query: RecallQuery
    at: float = field(default_factory=time.perf_counter)


AnswerAll = Callable[[Sequence[Asked], Deadline], Awaitable[Sequence[Answer | Exception]]]


@dataclass(frozen=True, eq=False)
class _Waiting:
    asked: Asked
    deadline: Deadline
    has_waited: bool
    answer: asyncio.Future[Answer]

    def end(self, answer: Answer | Exception) -> None:
        """Tell the caller, if it still waits."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)

    def goes_with(self, other: _Waiting) -> bool:
        """Tell whether both have about as much time left: the hurried must not cut the others short."""
        return 0.5 <= max(self.deadline.remaining, 1e-3) / max(other.deadline.remaining, 1e-3) <= 2.0


class Batcher:
    """Gathers single queries into batches. Belongs to one event loop."""

    def __init__(self, answer_all: AnswerAll) -> None:
        """answer_all: answers several queries by one deadline, in their order; of each an answer, or why not."""
        self._answer_all = answer_all
        self._waiting: deque[_Waiting] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._hanging: set[asyncio.Task[None]] = set()
        self._pace = Pace()

    def admit(self, deadline: Deadline) -> None:
        """Raise DeadlinePassed or Overloaded if a query that comes now cannot be answered in time."""
        if deadline.expired:
            raise DeadlinePassed("no time was left to begin")
        if len(self._under_way) >= _UNDER_WAY:
            self._pace.admit(len(self._waiting), deadline)

    async def answer(self, query: RecallQuery, deadline: Deadline) -> Answer:
        """Answer one query, alone or with others.

        Raises what answering it raises, and DeadlinePassed or Overloaded when its turn comes too late.
        """
        waits = len(self._under_way) >= _UNDER_WAY
        own = _Waiting(Asked(query), deadline, waits, asyncio.get_running_loop().create_future())
        self._waiting.append(own)
        self._begin()
        try:
            return await own.answer
        except asyncio.CancelledError:
            # Whoever comes next must not be told to wait for a caller that has gone.
            if own in self._waiting:
                self._waiting.remove(own)
            raise

    def _begin(self) -> None:
        while self._waiting and len(self._under_way) < _UNDER_WAY:
            if not (together := self._next()):
                continue
            task = asyncio.ensure_future(self._run(together))
            self._under_way.add(task)
            hangs_after = max(_HANGS_AFTER_SECONDS, _HANGS_AFTER * self._pace.batch_seconds)
            hangs = asyncio.get_running_loop().call_later(hangs_after, self._let_hang, task)
            begun = time.monotonic()
            task.add_done_callback(partial(self._end, hangs, begun, len(together)))

    def _next(self) -> list[_Waiting]:
        """Take those that go with the one that has waited longest and can still be answered; refuse what cannot."""
        together: list[_Waiting] = []
        left: list[_Waiting] = []
        while self._waiting and len(together) < _TOGETHER and len(left) < _TOGETHER:
            own = self._waiting.popleft()
            if own.answer.done():
                continue
            if own.has_waited and (error := self._pace.too_late(own.deadline)):
                own.end(error)
            elif not together or own.goes_with(together[0]):
                together.append(own)
            else:
                left.append(own)
        self._waiting.extendleft(reversed(left))
        return together

    def _let_hang(self, task: asyncio.Task[None]) -> None:
        if task in self._under_way:
            self._under_way.discard(task)
            self._hanging.add(task)
            self._begin()

    def _end(self, hangs: asyncio.TimerHandle, begun: float, size: int, task: asyncio.Task[None]) -> None:
        hangs.cancel()
        if task in self._hanging:
            self._hanging.discard(task)
        else:
            self._under_way.discard(task)
            self._pace.note(time.monotonic() - begun, size, others_wait=bool(self._waiting))
        self._begin()

    async def _run(self, together: Sequence[_Waiting]) -> None:
        left = [own for own in together if not own.answer.done()]
        if not left:
            # Nobody waits for them any more: their callers have gone.
            return
        deadline = min((own.deadline for own in left), key=lambda each: each.at)
        try:
            answers = await self._answer_all([own.asked for own in left], deadline)
            for own, answer in zip(left, answers, strict=True):
                own.end(answer)
        except asyncio.CancelledError:
            for own in left:
                own.answer.cancel()
            raise
        except Exception as error:
            for own in left:
                own.end(error)
