"""Measure Recall next to the plain stack that could stand in its place, and next to the floor of both.

    python -m benchmarks.channel --build var/complete-journey --out docs/results/bench.md
    python -m benchmarks.channel --build var/complete-journey --quick

One Triton with the build's user tower; the channel with one worker, the plain stack (benchmarks.plain_stack) and the
floor (benchmarks.floor), each a process of its own, asked for the same users in blocks that take turns. Compare ratios
within one run; the milliseconds belong to the machine and the moment. Every number of every block goes into a JSON file
beside the page, which `python -m benchmarks.compare` reads.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.command import facts_of, failed, options_of, read_options
from benchmarks.load import Bare, Batched, Block, Served, System, blocks_of, interleave, phases_of, rounds_of
from benchmarks.processes import ProcessTree
from benchmarks.ratios import Ratio, ratios
from benchmarks.report import Agreement, Report
from benchmarks.stored import known_users
from benchmarks.systems import (
    SystemStartError,
    bare_floor,
    channel,
    channel_options,
    plain_stack,
    triton_with_towers,
)
from serendipity import layout
from serendipity.tools.arguments import positive
from serendipity.tools.service import ServiceError
from serendipity.tools.serving.deployment import DeployError
from serendipity.tools.serving.triton_program import TritonError
from serendipity.v1 import channel_pb2

CHANNEL, PLAIN, FLOOR, BATCH = "channel", "plain stack", "floor", "RecallBatch"

_QUICK_CALLS, _QUICK_ROUNDS = 200, 8
_BATCH_SIZE = 32
_BATCHES = 2
"""Batches of a round."""
_WAVES = 8
"""Calls of a block per caller at least: with fewer, callers that have nothing left to ask would count for much."""


@dataclass(frozen=True)
class Plan:
    """How much is asked. users: in their order; calls: of each system in each phase, dealt out into `rounds`."""

    users: Sequence[str]
    calls: int
    rounds: int
    callers: int
    count: int

    def blocks(self, callers: int) -> list[list[str]]:
        """Users of each round."""
        block = max(-(-self.calls // self.rounds), _WAVES * callers if callers > 1 else 1)
        return rounds_of(self.users, self.calls, block)

    def batches(self) -> list[list[str]]:
        """Users of each round of batches."""
        block = _BATCHES * _BATCH_SIZE
        return rounds_of(self.users, max(2, self.rounds // 4) * block, block)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started."""
    parser = options_of("channel", __doc__)
    parser.add_argument("--build", type=Path, metavar="DIR", help="build directory (default: var/DATASET)")
    parser.add_argument("--dataset", default="complete-journey", help="names the default build directory")
    parser.add_argument("--users", type=positive, help="users asked for (default: all that have interests)")
    parser.add_argument("--calls", type=positive, default=3_000, help="calls of each system in each phase")
    parser.add_argument("--rounds", type=positive, default=60, help="rounds they are dealt out into")
    parser.add_argument("--callers", type=positive, default=16, help="callers at a time, after one alone")
    parser.add_argument("--count", type=positive, default=100, help="candidates asked for")
    parser.add_argument("--channels-tower", action="store_true", help="let the plain stack call the channel's tower")
    parser.add_argument("--quick", action="store_true", help="see that it runs, in a minute: too few calls to conclude")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the users")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here, and its JSON beside it")
    args = read_options(parser, argv)
    build = args.build or Path("var") / args.dataset
    if not (build / "snapshots" / layout.CURRENT).exists():
        return failed(parser, f"{build / 'snapshots' / layout.CURRENT}: nothing published; run `serendip build` first")
    calls, rounds = (_QUICK_CALLS, _QUICK_ROUNDS) if args.quick else (args.calls, args.rounds)
    try:
        report = measure(args, build, calls, rounds)
    except (SystemStartError, ServiceError, TritonError, DeployError, ProcessLookupError) as error:
        return failed(parser, error)
    except grpc.RpcError as error:
        return failed(parser, f"a call failed: {error.code().name}: {error.details()}")
    print(report.to_markdown())
    if args.out:
        report.write(args.out)
    return 0


def measure(args: argparse.Namespace, build: Path, calls: int, rounds: int) -> Report:
    """Start everything, measure, stop everything."""
    snapshot = (build / "snapshots" / layout.CURRENT).resolve()
    plan = Plan(known_users(snapshot, args.seed)[: args.users], calls, rounds, args.callers, args.count)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serendip-bench-")))
        options = channel_options(scratch / "channel")
        triton = stack.enter_context(triton_with_towers(build))
        served = stack.enter_context(channel(build, triton.address, options))
        plain = stack.enter_context(
            plain_stack(snapshot, triton.admin_address, scratch / "plain-stack", channels_tower=args.channels_tower)
        )
        connection, floor = stack.enter_context(bare_floor(snapshot, triton.admin_address))
        ours = Served(CHANNEL, served, plan.users, plan.count)
        theirs = Served(PLAIN, plain, plan.users, plan.count)
        batch = Batched(BATCH, served, plan.count, _BATCH_SIZE)
        least = Bare(FLOOR, connection, floor, plan.count)
        blocks = asyncio.run(_run(plan, ours, theirs, least, batch, triton.processes))
    manifest = layout.read_manifest(snapshot)
    facts = {
        **facts_of(args),
        "snapshot": f"{manifest.version}, {manifest.counts.items:,} items × {manifest.vector_index.dim}, "
        f"{len(manifest.categories)} categories",
        "asked": _asked(plan),
        "channel": "one worker, " + ", ".join(f"{name}={value}" for name, value in options.items() if name != "state"),
        "degraded answers of the channel": f"{_num_degraded(ours)} of {len(ours.answers)} users'",
        "spread of a ratio, in parentheses": "10th to 90th percentile of the rounds",
    }
    return Report("Benchmark of Recall", facts, blocks, _ratios(blocks), _agreements(ours, theirs, least))


async def _run(
    plan: Plan, ours: Served, theirs: Served, least: Bare, batch: Batched, triton: ProcessTree
) -> list[Block]:
    async def phase(name: str, systems: Sequence[System], callers: int, rounds: Sequence[Sequence[str]]) -> list[Block]:
        # The last of the users, who are asked again last.
        await interleave(name, systems, rounds[-1:], callers=callers, triton=triton)
        return await interleave(name, systems, rounds, callers=callers, triton=triton)

    async with AsyncExitStack() as clients:
        for client in (ours, theirs, batch):
            await clients.enter_async_context(client)
        blocks = await phase("1 caller", [ours, theirs, least], 1, plan.blocks(1))
        blocks += await phase(f"{plan.callers} callers", [ours, theirs], plan.callers, plan.blocks(plan.callers))
        return blocks + await phase(f"batches of {_BATCH_SIZE}", [batch, ours], 1, plan.batches())


def _asked(plan: Plan) -> str:
    users = len(plan.users)
    asked = f"{plan.calls:,} calls of each system in each phase, {plan.count} candidates, {users:,} users"
    return asked if plan.calls <= users else f"{asked}, so that some are asked for {-(-plan.calls // users)} times"


def _ratios(blocks: Sequence[Block]) -> list[Ratio]:
    """Compare the first system of every phase with each of the others."""
    return [
        ratio
        for phase, (ours, *others) in phases_of(blocks)
        for other in others
        for ratio in ratios(phase, blocks_of(blocks, phase, ours), blocks_of(blocks, phase, other))
    ]


def _num_degraded(channel: Served) -> int:
    return sum(channel_pb2.RecallResponse.FromString(answer).degraded for answer in channel.answers.values())


def _agreements(ours: Served, theirs: Served, least: Bare) -> list[Agreement]:
    answers = {system.name: _item_ids(system.answers) for system in (ours, theirs)}
    answers[least.name] = {user: set(ids) for user, ids in least.answers.items()}
    return [
        Agreement.of(f"{ours.name}, {other.name}", answers[ours.name], answers[other.name]) for other in (theirs, least)
    ]


def _item_ids(answers: Mapping[str, bytes]) -> dict[str, set[str]]:
    return {user: set(channel_pb2.RecallResponse.FromString(answer).item_ids) for user, answer in answers.items()}


if __name__ == "__main__":
    sys.exit(main())
