"""Measure how Recall, a worker's memory and a swap of snapshots bear a large catalogue.

    python -m benchmarks.synthetic_snapshot --items 1000000 --out var/synthetic
    python -m benchmarks.scale --large var/synthetic --small var/complete-journey --out docs/results/scale.md

Recall  two services, one on each build, asked one call at a time in blocks that take turns
memory  what belongs to each of two workers of one service alone, after both have answered
swap    the longest that a health check waits, beyond the median, while `current` is pointed at another snapshot; beside
        it the same while nothing happens
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import grpc

from benchmarks.command import facts_of, failed, options_of, read_options
from benchmarks.load import Block, Served, blocks_of, interleave, rounds_of
from benchmarks.processes import Running, private_bytes
from benchmarks.ratios import ratios
from benchmarks.report import Number, Report
from benchmarks.stalls import probing
from benchmarks.stored import known_users
from benchmarks.systems import channel, channel_options, triton_with_towers
from serendipity import layout
from serendipity.tools.arguments import positive
from serendipity.tools.service import ServiceError
from serendipity.tools.serving.deployment import DeployError
from serendipity.tools.serving.triton_program import TritonError
from serendipity.v1 import admin_pb2, admin_pb2_grpc, channel_pb2, channel_pb2_grpc

_PHASE = "1 caller"
_MIB = 1 << 20
_WORKERS = 2
_CONNECTIONS = 16
"""Enough that each of the workers has some."""
_QUIET_SECONDS = 3.0
_SWAP_SECONDS = 120.0
"""Time a worker has to serve another snapshot."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started."""
    parser = options_of("scale", __doc__)
    parser.add_argument(
        "--large", type=Path, required=True, metavar="DIR", help="build of benchmarks.synthetic_snapshot"
    )
    parser.add_argument("--small", type=Path, required=True, metavar="DIR", help="build that it is compared with")
    parser.add_argument("--calls", type=positive, default=1_000, help="calls of each service")
    parser.add_argument("--rounds", type=positive, default=20, help="rounds they are dealt out into")
    parser.add_argument("--swaps", type=positive, default=4, help="swaps of snapshots")
    parser.add_argument("--count", type=positive, default=100, help="candidates asked for")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the users")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here, and its JSON beside it")
    args = read_options(parser, argv)
    for build in (args.large, args.small):
        if not (build / "snapshots" / layout.CURRENT).exists():
            return failed(parser, f"{build / 'snapshots' / layout.CURRENT}: nothing published")
    try:
        report = measure(args)
    except (ServiceError, TritonError, DeployError, ProcessLookupError) as error:
        return failed(parser, error)
    except grpc.RpcError as error:
        return failed(parser, f"a call failed: {error.code().name}: {error.details()}")
    print(report.to_markdown())
    if args.out:
        report.write(args.out)
    return 0


def measure(args: argparse.Namespace) -> Report:
    """Start everything, measure, stop everything."""
    builds: list[Path] = [args.large, args.small]
    manifests = [layout.read_manifest(build / "snapshots" / layout.CURRENT) for build in builds]
    names = [f"{manifest.counts.items:,} items" for manifest in manifests]
    numbers: list[Number] = []
    with triton_with_towers(*builds) as triton:
        blocks = _ask_both(args, builds, names, triton)
        for build, name in zip(builds, names, strict=True):
            private = _private_memory(build, triton, args.count, args.seed)
            numbers.append(Number(f"private memory of a worker, {name}", private, "MiB"))
        numbers += _swaps(args.large, triton, args.swaps, names[0])
    facts = facts_of(args) | {
        name: f"{manifest.version}, × {manifest.vector_index.dim}, {manifest.vector_index.kind}, "
        f"{len(manifest.categories)} categories"
        for name, manifest in zip(names, manifests, strict=True)
    }
    facts["spread of a ratio, in parentheses"] = "10th to 90th percentile of the rounds"
    compared = ratios(_PHASE, *(blocks_of(blocks, _PHASE, name) for name in names))
    return Report("Benchmark of large catalogues", facts, blocks, compared, numbers=numbers)


def _ask_both(args: argparse.Namespace, builds: Sequence[Path], names: Sequence[str], triton: Running) -> list[Block]:
    people = [known_users(build / "snapshots" / layout.CURRENT, args.seed) for build in builds]
    asked = [str(number) for number in range(min(map(len, people)))]

    async def run(services: Sequence[Running]) -> list[Block]:
        async with AsyncExitStack() as clients:
            systems = [
                await clients.enter_async_context(Served(name, service, users[: len(asked)], args.count, asked))
                for name, service, users in zip(names, services, people, strict=True)
            ]
            rounds = rounds_of(asked, args.calls, -(-args.calls // args.rounds))
            await interleave(_PHASE, systems, rounds[-1:], callers=1, triton=triton.processes)
            return await interleave(_PHASE, systems, rounds, callers=1, triton=triton.processes)

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serendip-scale-")))
        services = [
            stack.enter_context(channel(build, triton.address, channel_options(scratch / str(i))))
            for i, build in enumerate(builds)
        ]
        return asyncio.run(run(services))


def _private_memory(build: Path, triton: Running, count: int, seed: int) -> list[float]:
    """Measure what belongs to each of two workers alone, MiB, after they have answered a few hundred users."""
    users = known_users(build / "snapshots" / layout.CURRENT, seed)[: 50 * _CONNECTIONS]
    with (
        tempfile.TemporaryDirectory(prefix="serendip-scale-") as state,
        channel(build, triton.address, channel_options(Path(state)), workers=_WORKERS) as service,
    ):
        for i in range(_CONNECTIONS):
            # Connections of one process to one address are one, unless told otherwise.
            with grpc.insecure_channel(service.address, options=[("grpc.use_local_subchannel_pool", 1)]) as connection:
                stub = channel_pb2_grpc.SerendipityChannelStub(connection)  # type: ignore[no-untyped-call]
                for user in users[i::_CONNECTIONS]:
                    stub.Recall(channel_pb2.RecallRequest(user_id=user, count=count))
        return [private_bytes(worker.pid) / _MIB for worker in _workers(service)]


def _swaps(build: Path, triton: Running, times: int, name: str) -> list[Number]:
    """Swap between two copies of a build's snapshot, and measure how long calls wait, ms, and how long it takes, s."""
    stalls, quiet, seconds = [], [], []
    with tempfile.TemporaryDirectory(prefix="serendip-scale-", dir=build) as scratch:
        snapshots = Path(scratch) / "snapshots"
        versions = _copies(build, snapshots)
        _point(snapshots, versions[0])
        options = channel_options(Path(scratch) / "state")
        with channel(Path(scratch), triton.address, options) as service:
            for number in range(times):
                version = versions[1 - number % 2]
                with probing(service.address) as prober:
                    time.sleep(_QUIET_SECONDS)
                    begin = time.perf_counter()
                    _point(snapshots, version)
                    _wait_until_served(service, version)
                    served = time.perf_counter()
                    # The old snapshot is closed, and what it held is freed.
                    time.sleep(1.0)
                    end = time.perf_counter()
                    probes = prober.stop()
                quiet.append(probes.between(begin - _QUIET_SECONDS, begin).longest_stall)
                stalls.append(probes.between(begin, end).longest_stall)
                seconds.append(served - begin)
    return [
        Number(f"longest wait while nothing happens, {name}", quiet, "ms"),
        Number(f"longest wait while another snapshot is swapped in, {name}", stalls, "ms"),
        Number(f"time until another snapshot serves, {name}", seconds, "s"),
    ]


def _copies(build: Path, snapshots: Path) -> list[str]:
    """Copy a build's published snapshot twice, under two versions."""
    current = (build / "snapshots" / layout.CURRENT).resolve()
    versions = [f"{current.name}-{copy}" for copy in "ab"]
    for version in versions:
        shutil.copytree(current, snapshots / version)
        manifest = layout.read_manifest(current)
        manifest.version = version
        layout.write_manifest(snapshots / version, manifest)
    return versions


def _point(snapshots: Path, version: str) -> None:
    """Make a version the wanted one, as a publication does."""
    beside = snapshots / ".current.next"
    beside.symlink_to(version)
    beside.replace(snapshots / layout.CURRENT)


def _wait_until_served(service: Running, version: str) -> None:
    deadline = time.monotonic() + _SWAP_SECONDS
    while any(worker.version != version for worker in _workers(service)):
        if time.monotonic() > deadline:
            raise ServiceError(f"{version} is not served within {_SWAP_SECONDS:g} s")
        time.sleep(0.05)


def _workers(service: Running) -> list[admin_pb2.WorkerSnapshot]:
    with grpc.insecure_channel(service.admin_address) as connection:
        stub = admin_pb2_grpc.SerendipityAdminStub(connection)  # type: ignore[no-untyped-call]
        return list(stub.GetSnapshot(admin_pb2.GetSnapshotRequest()).workers)


if __name__ == "__main__":
    sys.exit(main())
