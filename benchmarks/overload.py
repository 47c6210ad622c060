"""Load a worker with more calls than it can answer, and see what becomes of each.

    python -m benchmarks.overload --build var/complete-journey --out docs/results/overload.md

capacity   16 callers, each calling again as soon as it is answered, with all the time they want
closed     so many callers with deadlines; who is refused waits 100 ms and calls again
open       calls that come at random, so many times as often as the capacity, whatever becomes of those before them
hurried    one patient caller alone, then beside calls whose deadline nobody could keep
steady     two minutes at half of the capacity over connections that the service closes every few seconds

Phases take turns, and each is compared with the capacity of its own round. What the clients saw is laid beside what the
service counted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.command import facts_of, failed, options_of, read_options
from benchmarks.load import CHANNEL_SERVICE
from benchmarks.stored import known_users
from benchmarks.systems import channel, channel_options, triton_with_towers
from serendipity import layout
from serendipity.channel.service.worker_status import read_statuses
from serendipity.layout import write_atomically
from serendipity.tools.arguments import positive
from serendipity.tools.service import ServiceError
from serendipity.tools.serving.deployment import DeployError
from serendipity.tools.serving.triton_program import TritonError
from serendipity.v1 import channel_pb2

WHOLE, DEGRADED, EMPTY, REFUSED, EXPIRED = "whole", "degraded", "empty", "refused", "expired"
OUTCOMES = (WHOLE, DEGRADED, EMPTY, REFUSED, EXPIRED)
"""What becomes of a call; any other status goes by its own name."""

_KINDS = {grpc.StatusCode.RESOURCE_EXHAUSTED: REFUSED, grpc.StatusCode.DEADLINE_EXCEEDED: EXPIRED}
_PATIENCE, _DEADLINE, _HURRY = 60.0, 1.0, 0.003
_BACK_OFF = 0.1
_CAPACITY_CALLERS = 16
_CLOSED = (16, 64, 256)
_OPEN = (1, 2, 4)
_HURRIED_RATE = 30.0
_STEADY_SECONDS, _CONNECTION_SECONDS = 120.0, 5.0
_SETTLE_SECONDS = 1.5
"""Pause after a phase in which calls end that nobody waits for any more."""


@dataclass(frozen=True)
class Phase:
    """What became of the calls of one phase.

    by_second: outcome → calls that ended in each second; counted: status → calls, as the service counted them;
    milliseconds: of the calls that got an answer.
    """

    name: str
    round: int
    seconds: float
    by_second: dict[str, list[int]]
    counted: dict[str, int]
    milliseconds: list[float]

    @property
    def goodput(self) -> float:
        """Whole answers a second."""
        return self.total(WHOLE) / self.seconds

    def total(self, outcome: str) -> int:
        """Calls that ended so."""
        return sum(self.by_second.get(outcome, ()))


class Load:
    """Calls Recall of one service and notes what becomes of it."""

    def __init__(self, address: str, metrics_url: str, users: Sequence[str], count: int) -> None:
        self._address = address
        self._metrics_url = metrics_url
        self._requests = itertools.cycle(
            channel_pb2.RecallRequest(user_id=user, count=count).SerializeToString() for user in users
        )
        self._ended: list[tuple[float, str, float]] = []

    async def __aenter__(self) -> Load:
        self._connection = grpc.aio.insecure_channel(self._address)
        self._recall = self._connection.unary_unary(CHANNEL_SERVICE + "Recall")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def phase(self, name: str, number: int, load: Callable[[float], Awaitable[None]], seconds: float) -> Phase:
        """Put a load on the service for some seconds. load: is given the moment it ends, of time.perf_counter."""
        self._ended = []
        before = await self._counted()
        begin = time.perf_counter()
        await load(begin + seconds)
        taken = time.perf_counter() - begin
        ended = self._ended
        await asyncio.sleep(_SETTLE_SECONDS)
        counted = await self._counted()
        kinds = [*OUTCOMES, *sorted({kind for _, kind, _ in ended} - {*OUTCOMES})]
        by_second = {kind: [0] * (int(taken) + 1) for kind in kinds}
        for at, kind, _ in ended:
            by_second[kind][int(min(at - begin, taken))] += 1
        return Phase(
            name,
            number,
            seconds,
            by_second,
            {code: n - before.get(code, 0) for code, n in counted.items() if n > before.get(code, 0)},
            [round(milliseconds, 2) for _, kind, milliseconds in ended if kind in (WHOLE, DEGRADED)],
        )

    async def call(self, deadline: float) -> str:
        """Call once; returns what became of it."""
        begin = time.perf_counter()
        try:
            answer = channel_pb2.RecallResponse.FromString(await self._recall(next(self._requests), timeout=deadline))
            kind = EMPTY if not answer.item_ids else DEGRADED if answer.degraded else WHOLE
        except grpc.aio.AioRpcError as error:
            kind = _KINDS.get(error.code(), error.code().name)
        end = time.perf_counter()
        self._ended.append((end, kind, (end - begin) * 1e3))
        return kind

    async def closed(self, callers: int, deadline: float, until: float) -> None:
        """Let so many callers call one time after another; who gets no answer backs off."""

        async def caller() -> None:
            while time.perf_counter() < until:
                if await self.call(deadline) not in (WHOLE, DEGRADED):
                    await asyncio.sleep(_BACK_OFF)

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def open(self, rate: float, deadline: float, rng: np.random.Generator, until: float) -> None:
        """Let calls come at random, `rate` a second on average."""
        async with asyncio.TaskGroup() as calls:
            at = time.perf_counter()
            while (at := at + rng.exponential(1 / rate)) < until:
                await asyncio.sleep(at - time.perf_counter())
                calls.create_task(self.call(deadline))

    async def _counted(self) -> Counter[str]:
        def get() -> str:
            with urllib.request.urlopen(self._metrics_url) as response:
                return str(response.read().decode())

        text = await asyncio.to_thread(get)
        return Counter(
            {
                sample.labels["code"]: int(sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "serendipity_requests_total" and sample.labels["method"] == "Recall"
            }
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started."""
    parser = options_of("overload", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory")
    parser.add_argument("--count", type=positive, default=100, help="candidates asked for")
    parser.add_argument("--rounds", type=positive, default=3, help="times that every phase has its turn")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a phase")
    parser.add_argument("--steady-seconds", type=float, default=_STEADY_SECONDS, help="length of the steady one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the users, and of when calls come")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here, and its JSON beside it")
    args = read_options(parser, argv)
    if not (args.build / "snapshots" / layout.CURRENT).exists():
        return failed(parser, f"{args.build / 'snapshots' / layout.CURRENT}: nothing published; run `serendip build`")
    try:
        phases = measure(args)
    except (ServiceError, TritonError, DeployError) as error:
        return failed(parser, error)
    page = to_markdown(facts_of(args), phases)
    print(page)
    if args.out:
        write_atomically(args.out, page.encode())
        rows = ",\n".join(json.dumps(asdict(phase)) for phase in phases)
        write_atomically(args.out.with_suffix(".json"), f"[\n{rows}\n]\n".encode())
    return 0


def measure(args: argparse.Namespace) -> list[Phase]:
    """Start everything, measure, stop everything."""
    users = known_users((args.build / "snapshots" / layout.CURRENT).resolve(), args.seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serendip-overload-")))
        triton = stack.enter_context(triton_with_towers(args.build))
        loads = []
        for name, more in (("usual", {}), ("ageing", {"max_connection_age_seconds": str(_CONNECTION_SECONDS)})):
            served = stack.enter_context(channel(args.build, triton.address, channel_options(scratch / name) | more))
            (status,) = read_statuses(scratch / name / "workers")
            url = f"http://127.0.0.1:{status.metrics_port}/metrics"
            loads.append(Load(served.address, url, users, args.count))
        return asyncio.run(_run(args, *loads))


async def _run(args: argparse.Namespace, usual: Load, ageing: Load) -> list[Phase]:
    rng = np.random.default_rng(args.seed)
    fully = partial(usual.closed, _CAPACITY_CALLERS, _PATIENCE)
    async with AsyncExitStack() as clients:
        for load in (usual, ageing):
            await clients.enter_async_context(load)
        await usual.phase("warm-up", 0, fully, args.seconds)
        phases = []
        for number in range(args.rounds):
            capacity = await usual.phase("capacity", number, fully, args.seconds)
            phases.append(capacity)
            for name, put in _phases(usual, capacity.goodput, rng):
                phases.append(await usual.phase(name, number, put, args.seconds))
        rate = 0.5 * float(np.median([phase.goodput for phase in phases if phase.name == "capacity"]))
        name = f"steady, connections of {_CONNECTION_SECONDS:.0f} s"
        steady = await ageing.phase(name, 0, partial(ageing.open, rate, _DEADLINE, rng), args.steady_seconds)
        return [*phases, steady]


def _phases(
    load: Load, capacity: float, rng: np.random.Generator
) -> Iterator[tuple[str, Callable[[float], Awaitable[None]]]]:
    for callers in _CLOSED:
        yield f"closed, {callers} callers", partial(load.closed, callers, _DEADLINE)
    for times in _OPEN:
        yield f"open, {times} × capacity", partial(load.open, times * capacity, _DEADLINE, rng)
    yield "patient alone", partial(load.closed, 1, _DEADLINE)

    async def beside(until: float) -> None:
        hurried = asyncio.create_task(load.open(_HURRIED_RATE, _HURRY, rng, until))
        await load.closed(1, _DEADLINE, until)
        await hurried

    yield f"patient, and {_HURRIED_RATE:.0f} calls a second with {_HURRY * 1e3:.0f} ms", beside


def to_markdown(facts: dict[str, str], phases: Sequence[Phase]) -> str:
    """Lay the page out: a row for each kind of phase, medians of its rounds."""
    capacities = {phase.round: phase.goodput for phase in phases if phase.name == "capacity"}
    lines = [
        "# Overload",
        "",
        *(f"* {name}: {value}" for name, value in facts.items()),
        f"* deadlines: {_DEADLINE:.0f} s; who gets no answer backs off {_BACK_OFF * 1e3:.0f} ms",
        "",
        "Calls a second by what became of them, and whole answers ÷ capacity: median, least and most of the rounds.",
        "",
        f"| | {' | '.join(OUTCOMES)} | other | whole ÷ capacity | p50 ms | p99 ms |",
        f"|---|{'---|' * (len(OUTCOMES) + 4)}",
    ]
    by_name = {name: [phase for phase in phases if phase.name == name] for name in {p.name: 0 for p in phases}}
    for name, rounds in by_name.items():
        cells = [f"{np.median([p.total(kind) / p.seconds for p in rounds]):.1f}" for kind in OUTCOMES]
        cells.append(f"{np.median([_other(p) / p.seconds for p in rounds]):.1f}")
        ratios = [p.goodput / capacities[p.round] for p in rounds]
        cells.append(f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        milliseconds = np.concatenate([p.milliseconds for p in rounds])
        cells += [f"{np.percentile(milliseconds, at):.1f}" if len(milliseconds) else "–" for at in (50, 99)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "## What the clients saw and what the service counted",
        "",
        "Answered, refused, expired: at the clients; statuses: at the service. All rounds together. A call that "
        "expired at its client may have been answered too late by the service, or never have reached it.",
        "",
        "| | answered | OK | refused | RESOURCE_EXHAUSTED | expired | DEADLINE_EXCEEDED | CANCELLED |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rounds in by_name.items():
        counted: Counter[str] = sum((Counter(p.counted) for p in rounds), Counter())
        answered = sum(p.total(kind) for p in rounds for kind in (WHOLE, DEGRADED, EMPTY))
        refused, expired = (sum(p.total(kind) for p in rounds) for kind in (REFUSED, EXPIRED))
        codes = [counted[code] for code in ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED")]
        row = (answered, codes[0], refused, codes[1], expired, *codes[2:])
        lines.append(f"| {name} | {' | '.join(f'{cell:,}' for cell in row)} |")
    return "\n".join([*lines, ""])


def _other(phase: Phase) -> int:
    return sum(phase.total(kind) for kind in phase.by_second if kind not in OUTCOMES)


if __name__ == "__main__":
    sys.exit(main())
