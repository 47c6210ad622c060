"""Soak a Triton with callers at their worst: calls given up, clients killed, a connection that goes dead.

    python -m benchmarks.synthetic_snapshot --items 2000 --users 2 --out var/soak
    python -m benchmarks.triton_soak --build var/soak --out docs/results/triton-soak.md

The channel's own client calls a build's user tower. Its breaker is set aside where Triton shall be called
however it answers. Nothing is measured, and the exit status is 1, once Triton has ended or does not answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.processes import ProcessTree, private_bytes
from benchmarks.wire import wire_to
from serendipity import layout
from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerError, TowerTimeout, TowerUnavailable
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.triton import TritonTower
from serendipity.features import TowerInputs
from serendipity.tools.arguments import positive
from serendipity.tools.serving.deployment import DeployError, load
from serendipity.tools.serving.kinds import user_tower
from serendipity.tools.serving.repository import install
from serendipity.tools.serving.trainings import PlacementError
from serendipity.tools.serving.triton_program import TritonError
from serendipity.tools.serving.triton_server import TritonServer, launch

_MEANING = (
    "One user a call, over HTTP. Nobody cancels a call: who gives up stops waiting, and the client refuses further "
    "calls while sixteen run on that nobody waits for; refused ones were made again and are not among the calls."
)
_CALLERS = 32
_SHORTEST, _LONGEST = 0.0005, 0.020
"""Deadlines of those who give up, seconds: about none to most of such calls are answered in time."""
_PATIENCE = 10.0
_CUT_CALLERS, _CUT_DEADLINE = 4, 0.1
_HEALING_SECONDS = 120.0
_UNBROKEN = ChannelSettings(breaker_failures=1_000_000_000)


@dataclass(frozen=True)
class Tower:
    """A user tower on Triton. url: where TritonTower calls it; inputs: of one user."""

    url: str
    name: str
    inputs: TowerInputs

    async def ask(self, client: TritonTower, seconds: float) -> None:
        """Call it once. Raises TowerError."""
        await client.user_vectors(self.name, self.inputs, Deadline.after(seconds))


def main(argv: Sequence[str] | None = None) -> int:
    """Soak and print; returns 1 when Triton ended, or did not answer a patient call."""
    parser = options_of("triton_soak", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build whose user tower is called")
    parser.add_argument("--calls", type=positive, default=60_000, help="with deadlines of 0.5 to 20 ms")
    parser.add_argument("--kills", type=positive, default=50, help="of a client with calls in flight")
    parser.add_argument("--seed", type=int, default=0, help="of the deadlines and of the moments of the kills")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report (Markdown)")
    args = read_options(parser, argv)
    try:
        with tempfile.TemporaryDirectory(prefix="serendip-soak-") as models:
            report = _soak(args, Path(models))
    except (layout.SnapshotError, PlacementError, TritonError, DeployError, TowerError) as error:
        return failed(parser, error)
    return publish(report, args.out)


def _soak(args: argparse.Namespace, models: Path) -> str:
    rng = np.random.default_rng(args.seed)
    manifest = layout.read_manifest(args.build / "snapshots" / layout.CURRENT)
    model = user_tower(manifest.tower, manifest.vector_index.dim)
    install(model, args.build / "towers", models)
    with launch(models) as server:
        try:
            load(server.grpc_url, model)
            tower = Tower(server.url, model.name, TowerInputs(**model.question))
            memory = [_memory(server)]
            begin = time.monotonic()
            outcomes = asyncio.run(give_up(tower, rng.uniform(_SHORTEST, _LONGEST, args.calls)))
            seconds = time.monotonic() - begin
            received = _received(server, model.name)
            memory.append(_memory(server))
            slowest = max(_kill_a_client(tower, moment) for moment in rng.uniform(0.0, _LONGEST, args.kills))
            memory.append(_memory(server))
            lost, healed = asyncio.run(cut(tower))
        finally:
            # What a client met is of less interest than that there was no server any more.
            server.check()
    rows = [
        (f"calls with deadlines of 0.5 to 20 ms, {_CALLERS} at once", f"{args.calls:,} in {seconds:.0f} s"),
        *((f"… {outcome}", f"{number:,}") for outcome, number in sorted(outcomes.items())),
        ("requests that reached Triton meanwhile", f"{received:,}"),
        (f"clients killed (SIGKILL) with {_CALLERS} calls in flight", f"{args.kills:,}"),
        ("longest first answer of the next client", f"{slowest * 1e3:.0f} ms"),
        (f"{_CALLERS} connections cut without closing: calls of 100 ms lost, {_CUT_CALLERS} at once", f"{lost:,}"),
        ("time until all were answered again", f"{healed:.2f} s"),
        ("deaths of Triton", "0"),
        ("memory of its own: loaded, after the calls, after the kills", " → ".join(f"{m:.0f}" for m in memory) + " MB"),
    ]
    lines = ["# A soak of Triton", "", f"{made_by(args)}.", "", _MEANING, "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {found} |" for what, found in rows)]) + "\n"


async def give_up(tower: Tower, deadlines: Sequence[float]) -> Counter[str]:
    """Call with these deadlines, seconds, some at once, and count what became of the calls."""
    outcomes: Counter[str] = Counter()
    async with _client(tower, _UNBROKEN) as client:

        async def ask(seconds: float) -> None:
            patience = Deadline.after(_PATIENCE)
            while True:
                try:
                    return await tower.ask(client, seconds)
                except TowerUnavailable:
                    # Too many that were given up still run: another caller would do without the tower.
                    outcomes["refused by the client meanwhile"] += 1
                    if patience.expired:
                        raise
                    await asyncio.sleep(_SHORTEST)

        async def caller(mine: Sequence[float]) -> None:
            for seconds in mine:
                try:
                    await ask(seconds)
                    outcomes["answered"] += 1
                except TowerTimeout:
                    outcomes["given up"] += 1

        await asyncio.gather(*(caller(deadlines[at::_CALLERS]) for at in range(_CALLERS)))
        # Whatever was given up, a patient call is answered.
        await ask(_PATIENCE)
    return outcomes


async def cut(tower: Tower) -> tuple[int, float]:
    """Cut connections without closing them; return calls lost, and seconds until all callers were answered again.

    Raises TowerError when they are not.
    """
    lost = 0
    async with wire_to(tower.url) as (url, wire):
        through = Tower(url, tower.name, tower.inputs)
        async with _client(through, ChannelSettings()) as client:

            async def lose(callers: int, seconds: float) -> int:
                calls = (through.ask(client, seconds) for _ in range(callers))
                return callers - (await asyncio.gather(*calls, return_exceptions=True)).count(None)

            if await lose(_CALLERS, _PATIENCE):
                raise TowerTimeout("no answers over a connection that was not cut")
            wire.cut()
            begin = time.monotonic()
            while failures := await lose(_CUT_CALLERS, _CUT_DEADLINE):
                lost += failures
                if time.monotonic() - begin > _HEALING_SECONDS:
                    raise TowerTimeout(f"no answers for {_HEALING_SECONDS:g} s after a connection was cut")
                await asyncio.sleep(_CUT_DEADLINE)
            return lost, time.monotonic() - begin


def _kill_a_client(tower: Tower, moment: float) -> float:
    """Kill a client with calls in flight some seconds after its first answer; return the time of the next client's.

    Raises TowerError when it, or a call after it, is not answered.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_call_for_ever, args=(its, tower), name="client")
    process.start()
    its.close()
    try:
        ours.recv()
        time.sleep(moment)
    except EOFError as error:
        raise TowerTimeout("a client had no answer") from error
    finally:
        process.kill()
        process.join()
        ours.close()
    return asyncio.run(_answer_time(tower))


def _call_for_ever(connection: Connection, tower: Tower) -> None:
    async def run() -> None:
        client = TritonTower(tower.url, _UNBROKEN)
        await tower.ask(client, _PATIENCE)
        connection.send("answered")

        async def caller() -> None:
            while True:
                await tower.ask(client, _PATIENCE)

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))

    asyncio.run(run())


async def _answer_time(tower: Tower) -> float:
    """Seconds of a patient call over a new connection. Raises TowerError."""
    async with _client(tower, _UNBROKEN) as client:
        begin = time.monotonic()
        await tower.ask(client, _PATIENCE)
        return time.monotonic() - begin


@contextlib.asynccontextmanager
async def _client(tower: Tower, settings: ChannelSettings) -> AsyncIterator[TritonTower]:
    client = TritonTower(tower.url, settings)
    try:
        yield client
    finally:
        await client.close()


def _received(server: TritonServer, model_name: str) -> int:
    """Requests to a model that Triton has counted, those it failed included."""
    with urllib.request.urlopen(f"http://{server.url}/v2/models/{model_name}/stats") as response:
        stats = json.load(response)["model_stats"][0]["inference_stats"]
    return int(stats["success"]["count"]) + int(stats["fail"]["count"])


def _memory(server: TritonServer) -> float:
    """Private memory of Triton and its Python processes, MB."""
    return sum(private_bytes(pid) for pid in ProcessTree.of(server.pid).pids) / 1e6


if __name__ == "__main__":
    sys.exit(main())
