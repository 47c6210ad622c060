"""Calls of a host at a steady rate, through the product's client, and what became of each."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from benchmarks.overload import DEGRADED, EMPTY, EXPIRED, REFUSED, WHOLE
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.errors import ClientError, DeadlineExceeded, Overloaded

ANSWERED = (WHOLE, DEGRADED)
_DEADLINE = 1.0
_CONNECTIONS = 8
_CLOSED_CALLERS = 16


@dataclass(frozen=True)
class Call:
    """begun: `time.monotonic`; seconds: until it ended; outcome: as of benchmarks.overload, or another status."""

    begun: float
    seconds: float
    outcome: str


class HostCalls:
    """A context in which calls are made, from a thread of its own, however their answers fare.

    users: called for in turn; rate: calls begun a second; None: sixteen callers, each again once it is answered.
    """

    def __init__(self, address: str, users: Sequence[str], count: int, rate: float | None) -> None:
        self._address = address
        self._users = itertools.cycle(users)
        self._count = count
        self._rate = rate
        self._told = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call_on()), name="host")
        self.ended: list[Call] = []

    def __enter__(self) -> HostCalls:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._told.set()
        self._thread.join()

    def between(self, start: float, end: float) -> list[Call]:
        """Those that were begun within a time of `time.monotonic`."""
        return [call for call in self.ended if start <= call.begun < end]

    async def _call_on(self) -> None:
        async with (
            AsyncSerendipityClient(self._address, connections=_CONNECTIONS, timeout=_DEADLINE) as client,
            asyncio.TaskGroup() as calls,
        ):
            if self._rate is None:
                for _ in range(_CLOSED_CALLERS):
                    calls.create_task(self._closed(client))
                return
            due = time.monotonic()
            while not self._told.is_set():
                calls.create_task(self._call(client))
                due += 1 / self._rate
                await asyncio.sleep(due - time.monotonic())

    async def _closed(self, client: AsyncSerendipityClient) -> None:
        while not self._told.is_set():
            await self._call(client)

    async def _call(self, client: AsyncSerendipityClient) -> None:
        begun = time.monotonic()
        try:
            answer = await client.recall(next(self._users), count=self._count)
            outcome = EMPTY if not answer.candidates else DEGRADED if answer.degraded else WHOLE
        except DeadlineExceeded:
            outcome = EXPIRED
        except ClientError as error:
            outcome = REFUSED if isinstance(error, Overloaded) else error.code.name
        self.ended.append(Call(begun, time.monotonic() - begun, outcome))


def outcomes(calls: Sequence[Call]) -> Counter[str]:
    """Count calls by what became of them."""
    return Counter(call.outcome for call in calls)
