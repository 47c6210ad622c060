"""What TLS, a token and traces cost: channels with and without, asked for the same users in turn.

    python -m benchmarks.secured --build var/complete-journey --out docs/results/secured.md

Each is a service of one worker on one Triton: in plain text for anybody; over TLS for a caller with a token and limits;
with OpenTelemetry that records one call in a hundred, and every call, for a collector in this process. Only ratios
within one run mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import grpc
import trustme
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.command import facts_of, failed, options_of, read_options
from benchmarks.load import Block, Served, blocks_of, interleave, phases_of, rounds_of
from benchmarks.processes import ProcessTree
from benchmarks.ratios import ratios
from benchmarks.report import Report
from benchmarks.stored import known_users
from benchmarks.systems import channel, channel_options, triton_with_towers
from serendipity import layout
from serendipity.channel.client import Credentials
from serendipity.tools.arguments import positive
from serendipity.tools.service import ServiceError
from serendipity.tools.serving.deployment import DeployError
from serendipity.tools.serving.triton_program import TritonError

PLAIN, SECURED, SAMPLED, TRACED = "plain", "TLS and token", "1 % traced", "all traced"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Takes spans, as OpenTelemetry's collector does, and counts them."""

    def __init__(self) -> None:
        self.spans = 0

    def Export(  # noqa: N802 - the name of the RPC
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take some."""
        self.spans += sum(len(scope.spans) for of in request.resource_spans for scope in of.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns 1 when something cannot be started."""
    parser = options_of("secured", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory")
    parser.add_argument("--calls", type=positive, default=1_500, help="calls of each system in each phase")
    parser.add_argument("--rounds", type=positive, default=30, help="rounds they are dealt out into")
    parser.add_argument("--callers", type=positive, default=16, help="callers at a time, after one alone")
    parser.add_argument("--count", type=positive, default=100, help="candidates asked for")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the users")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here, and its JSON beside it")
    args = read_options(parser, argv)
    if not (args.build / "snapshots" / layout.CURRENT).exists():
        return failed(parser, f"{args.build / 'snapshots' / layout.CURRENT}: nothing published; run `serendip build`")
    try:
        report = measure(args)
    except (ServiceError, TritonError, DeployError) as error:
        return failed(parser, error)
    except grpc.RpcError as error:
        return failed(parser, f"a call failed: {error.code().name}: {error.details()}")
    print(report.to_markdown())
    if args.out:
        report.write(args.out)
    return 0


def measure(args: argparse.Namespace) -> Report:
    """Start everything, measure, stop everything."""
    users = known_users((args.build / "snapshots" / layout.CURRENT).resolve(), args.seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serendip-secured-")))
        triton = stack.enter_context(triton_with_towers(args.build))
        collector = Collector()
        endpoint = stack.enter_context(_collecting(collector))
        secured, credentials = _secure(scratch)
        exported = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
        wanted: tuple[tuple[str, dict[str, str], dict[str, str], Credentials], ...] = (
            (PLAIN, {}, {}, Credentials()),
            (SECURED, secured, {}, credentials),
            (SAMPLED, {}, {**exported, "OTEL_TRACES_SAMPLER_ARG": "0.01"}, Credentials()),
            (TRACED, {}, {**exported, "OTEL_TRACES_SAMPLER_ARG": "1"}, Credentials()),
        )
        # Ended before the collector: the last spans are sent then.
        with ExitStack() as channels:
            systems = []
            for name, options, variables, shown in wanted:
                settings = {**channel_options(scratch / name.replace(" ", "-")), **options}
                with _environment(variables):
                    running = channels.enter_context(channel(args.build, triton.address, settings))
                systems.append(Served(name, running, users, args.count, credentials=shown))
            blocks = asyncio.run(_run(args, users, systems, triton.processes))
    facts = {
        **facts_of(args),
        "asked": f"{args.calls:,} calls of each system in each phase, {args.count} candidates",
        "spans that reached the collector": f"{collector.spans:,}",
        "spread of a ratio, in parentheses": "10th to 90th percentile of the rounds",
    }
    compared = [
        ratio
        for phase, (plain, *others) in phases_of(blocks)
        for other in others
        for ratio in ratios(phase, blocks_of(blocks, phase, other), blocks_of(blocks, phase, plain))
    ]
    return Report("What TLS, tokens and traces cost", facts, blocks, compared)


async def _run(
    args: argparse.Namespace, users: Sequence[str], systems: Sequence[Served], triton: ProcessTree
) -> list[Block]:
    rounds, blocks = rounds_of(users, args.calls, -(-args.calls // args.rounds)), []
    async with AsyncExitStack() as clients:
        for client in systems:
            await clients.enter_async_context(client)
        for callers in (1, args.callers):
            phase = f"{callers} caller{'s' if callers > 1 else ''}"
            # What comes first, connections and the first batches, is no part of it.
            await interleave(phase, systems, rounds[-1:], callers=callers, triton=triton)
            blocks += await interleave(phase, systems, rounds, callers=callers, triton=triton)
    return blocks


def _secure(directory: Path) -> tuple[dict[str, str], Credentials]:
    """Make a certificate and a caller; returns the settings of a service that wants them, and what the caller shows."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    ca, certificate, key = (directory / name for name in ("ca.pem", "tls.pem", "tls.key"))
    authority.cert_pem.write_to_path(str(ca))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    token, callers = secrets.token_hex(), directory / "callers.toml"
    digest = hashlib.sha256(token.encode()).hexdigest()
    limits = "calls_at_once = 1000\ncalls_per_second = 1000000"
    operator = f'[operator]\nrole = "operator"\ntokens = ["{"0" * 64}"]'
    callers.write_text(f'[host]\nrole = "host"\ntokens = ["{digest}"]\n{limits}\n{operator}\n')
    settings = {"tls_certificate": str(certificate), "tls_key": str(key), "callers": str(callers)}
    health = {"health_address": "127.0.0.1:0", "admin_health_address": "127.0.0.1:0"}
    return {**settings, **health}, Credentials(ca, token=token)


@contextmanager
def _collecting(collector: Collector) -> Iterator[str]:
    """Serve a collector on loopback; yields its URL."""
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    sys.exit(main())
