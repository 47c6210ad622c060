"""Load on several systems in turn: blocks of calls, interleaved, each with its wall time, its latencies and its CPU.

What a machine does meanwhile, and how fast its clock happens to be, then hits all systems alike; only ratios within one
run mean anything.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import grpc

from benchmarks.processes import ProcessTree, Running, busy_seconds
from serendipity.channel.client.credentials import NO_CREDENTIALS, Credentials
from serendipity.v1 import channel_pb2

CHANNEL_SERVICE = "/serendipity.v1.SerendipityChannel/"
_PATIENCE = 60.0
_OPTIONS = [("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True)
class Block:
    """Some calls of one system, one after another or `callers` at a time.

    seconds: wall time of all; milliseconds: [calls]; users: asked for in them; server_cpu, triton_cpu: CPU seconds of
    the system's processes and of Triton's; other_share: part of the machine's cores that was used by others than
    system, Triton and load, 0 to 1.
    """

    phase: str
    round: int
    system: str
    callers: int
    users: int
    seconds: float
    milliseconds: list[float]
    server_cpu: float
    triton_cpu: float
    other_share: float


class System(Protocol):
    """Something that answers users. name: in reports; server: its processes."""

    name: str
    server: ProcessTree

    async def ask(self, users: Sequence[str], callers: int) -> list[float]:
        """Ask for users, `callers` calls at a time; returns milliseconds by call."""
        ...


class Served:
    """A service with the channel's RPCs. Requests are made before the clock runs; answers are kept as bytes.

    users: whom it is asked for; names: what `ask` calls them, where that is another; credentials: shown to it.
    """

    def __init__(
        self,
        name: str,
        running: Running,
        users: Sequence[str],
        count: int,
        names: Sequence[str] | None = None,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        self.name = name
        self.server = running.processes
        self.answers: dict[str, bytes] = {}
        self._address = running.address
        self._credentials = credentials
        self._requests = {
            called: channel_pb2.RecallRequest(user_id=user, count=count).SerializeToString()
            for called, user in zip(names or users, users, strict=True)
        }

    async def __aenter__(self) -> Served:
        # Only now: a channel belongs to the event loop that it is made in.
        self._connection = self._credentials.connect(grpc.aio, self._address, _OPTIONS)
        self._recall = self._connection.unary_unary(CHANNEL_SERVICE + "Recall")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def ask(self, users: Sequence[str], callers: int) -> list[float]:
        """Call Recall once for each user."""
        milliseconds: list[float] = []
        waiting = iter(users)

        async def caller() -> None:
            for user in waiting:
                begin = time.perf_counter()
                request, shown = self._requests[user], self._credentials.metadata
                answer = await self._recall(request, timeout=_PATIENCE, metadata=shown)
                milliseconds.append((time.perf_counter() - begin) * 1e3)
                self.answers[user] = answer

        await asyncio.gather(*(caller() for _ in range(callers)))
        return milliseconds


class Batched:
    """The same service by RecallBatch."""

    def __init__(self, name: str, running: Running, count: int, size: int) -> None:
        self.name = name
        self.server = running.processes
        self._address = running.address
        self._count = count
        self._size = size

    async def __aenter__(self) -> Batched:
        self._connection = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        self._recall = self._connection.unary_unary(CHANNEL_SERVICE + "RecallBatch")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def ask(self, users: Sequence[str], callers: int) -> list[float]:  # noqa: ARG002
        """Call RecallBatch for `size` users at a time, one call after another."""
        requests = [
            channel_pb2.RecallBatchRequest(
                requests=[
                    channel_pb2.RecallRequest(user_id=user, count=self._count) for user in users[at : at + self._size]
                ]
            ).SerializeToString()
            for at in range(0, len(users), self._size)
        ]
        milliseconds = []
        for request in requests:
            begin = time.perf_counter()
            await self._recall(request, timeout=_PATIENCE)
            milliseconds.append((time.perf_counter() - begin) * 1e3)
        return milliseconds


class Bare:
    """A process at the other end of a pipe that measures itself: benchmarks.floor."""

    def __init__(self, name: str, connection: Connection, server: ProcessTree, count: int) -> None:
        self.name = name
        self.server = server
        self.answers: dict[str, list[str]] = {}
        self._connection = connection
        self._count = count

    async def ask(self, users: Sequence[str], callers: int) -> list[float]:  # noqa: ARG002
        """Send all users at once; it answers one after another."""
        self._connection.send((list(users), self._count))
        milliseconds, answers = await asyncio.to_thread(self._connection.recv)
        self.answers.update(zip(users, answers, strict=True))
        found: list[float] = milliseconds
        return found


async def interleave(
    phase: str,
    systems: Sequence[System],
    rounds: Sequence[Sequence[str]],
    *,
    callers: int,
    triton: ProcessTree,
) -> list[Block]:
    """Ask every system for the users of every round, system after system, in an order that rotates."""
    blocks = []
    for number, users in enumerate(rounds):
        first = number % len(systems)
        for system in (*systems[first:], *systems[:first]):
            blocks.append(await _measure(phase, number, system, users, callers, triton))
    return blocks


def rounds_of(users: Sequence[str], calls: int, block: int) -> list[list[str]]:
    """Deal users out into rounds of `block`, `calls` in all; after the last user comes the first again."""
    return [[users[(at + i) % len(users)] for i in range(min(block, calls - at))] for at in range(0, calls, block)]


async def _measure(
    phase: str, number: int, system: System, users: Sequence[str], callers: int, triton: ProcessTree
) -> Block:
    trees = {"server": system.server, "triton": triton}
    before, own, busy = _cpu(trees), time.process_time(), busy_seconds()
    begin = time.perf_counter()
    milliseconds = await system.ask(users, callers)
    seconds = time.perf_counter() - begin
    after, own, busy = _cpu(trees), time.process_time() - own, busy_seconds() - busy
    spent = {name: after[name] - before[name] for name in trees}
    others = busy - own - sum(spent.values())
    return Block(
        phase=phase,
        round=number,
        system=system.name,
        callers=callers,
        users=len(users),
        seconds=seconds,
        milliseconds=[round(value, 3) for value in milliseconds],
        server_cpu=spent["server"],
        triton_cpu=spent["triton"],
        other_share=max(0.0, others / (seconds * (os.cpu_count() or 1))),
    )


def _cpu(trees: Mapping[str, ProcessTree]) -> dict[str, float]:
    return {name: tree.cpu_seconds() for name, tree in trees.items()}


def blocks_of(blocks: Sequence[Block], phase: str, system: str) -> list[Block]:
    """Find the blocks of one system in one phase, by round."""
    return sorted((b for b in blocks if (b.phase, b.system) == (phase, system)), key=lambda block: block.round)


def phases_of(blocks: Sequence[Block]) -> Iterator[tuple[str, list[str]]]:
    """Yield phases and the systems in each, in the order they were measured."""
    for phase in dict.fromkeys(block.phase for block in blocks):
        yield phase, list(dict.fromkeys(block.system for block in blocks if block.phase == phase))
