"""Place a snapshot's models on Triton, load and check them, then publish the snapshot that pins them.

    serendip deploy --build var/complete-journey --triton 127.0.0.1:8001 [VERSION]

A failure at any step leaves the snapshot that is published now, and the model it pins, as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from serendipity import layout
from serendipity.channel.client import AdminClient, ClientError, Credentials
from serendipity.channel.client.credentials import NO_CREDENTIALS
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.trial_opening import can_be_opened
from serendipity.tools.arguments import add_credentials, read_credentials
from serendipity.tools.serving.deployment import (
    DeployError,
    deploy,
    fault_of_server,
    load,
    retained_models,
    unload_unused,
)
from serendipity.tools.serving.kinds import TEXT_ENCODER, Serving
from serendipity.tools.serving.repository import install
from serendipity.tools.serving.trainings import PlacementError
from serendipity.v1 import admin_pb2


def publish_over(address: str, credentials: Credentials = NO_CREDENTIALS) -> Callable[[str], None]:
    """Give a function that publishes a version through the admin service at `address` (host:port), and waits for it."""

    def publish(version: str) -> None:
        try:
            with AdminClient(address, credentials=credentials) as admin:
                ended = admin.follow(admin.publish(version).id, _say)
        except ClientError as error:
            raise DeployError(f"{version}: the admin service at {address} did not publish it: {error}") from error
        if ended.state != admin_pb2.OPERATION_STATE_DONE:
            raise DeployError(f"{version}: the admin service at {address} refused it: {ended.error}")

    return publish


def _say(operation: admin_pb2.Operation) -> None:
    told = f"operation {operation.id}: {operation.step} {operation.version}, {operation.progress:.0%}"
    print(told, file=sys.stderr, flush=True)


def publish_on_disk(snapshots: Path, gate: bool = True) -> Callable[[str], None]:
    """Give a function that publishes a version below `snapshots`; services that read them there follow."""

    def publish(version: str) -> None:
        gates = []
        if gate:
            from serendipity.tools.quality_gate import quality_gate

            gates.append(quality_gate())
        Publications(snapshots, checks=[can_be_opened(snapshots)], gates=gates).publish(version)

    return publish


def newest(snapshots: Path) -> str:
    """Version of the newest snapshot on disk. Raises DeployError when there is none."""
    for listed in Publications(snapshots).listed():
        if listed.manifest is not None:
            return listed.version
    raise DeployError(f"{snapshots}: holds no snapshot; build one with `serendip build`")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip deploy`."""
    parser.add_argument("version", nargs="?", help="snapshot to publish (default: the newest on disk)")
    parser.add_argument(
        "--build", type=Path, required=True, metavar="DIR", help="build directory: snapshots/ and trainings"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="Triton's repository (default: models/ of the build)"
    )
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="also place and load this text encoder")
    parser.add_argument(
        "--instances", type=int, metavar="N", help="instances of tower and encoders (default: as checked in)"
    )
    parser.add_argument("--gpu", action="store_true", help="run all models on Triton's GPUs, N on each")
    parser.add_argument(
        "--llm-threads", type=int, metavar="N", help="threads of each language model on CPUs (default: as checked in)"
    )
    parser.add_argument(
        "--triton",
        default="127.0.0.1:8001",
        metavar="URL",
        help="Triton's gRPC port: host:port, or https://host:port?ca=FILE",
    )
    parser.add_argument(
        "--admin", metavar="HOST:PORT", help="publish over this admin service, not on this machine's disk"
    )
    parser.add_argument("--no-gate", action="store_true", help="publish on disk without the quality gate")
    parser.add_argument("--unload-unused", action="store_true", help="then unload models no retained snapshot pins")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="per call to Triton")
    add_credentials(parser)


def run(args: argparse.Namespace) -> int:
    """Deploy, saying what is done; returns 1 when a step fails."""
    snapshots, models = args.build / "snapshots", args.models or args.build / "models"
    if args.admin:
        publish = publish_over(args.admin, read_credentials(args.ca, args.certificate, args.key, args.token))
    elif args.ca or args.certificate or args.key or args.token:
        print("serendip deploy: credentials are the admin service's: found no --admin beside them", file=sys.stderr)
        return 1
    else:
        publish = publish_on_disk(snapshots, gate=not args.no_gate)
    try:
        serving = Serving(
            instances=args.instances,
            gpu=args.gpu,
            llm_threads=args.llm_threads,
        )
        version = args.version or newest(snapshots)
        if fault := fault_of_server(args.triton, args.timeout):
            print(f"serendip deploy: warning: {fault}", file=sys.stderr)
        if args.text_encoder:
            encoder = TEXT_ENCODER.trained(args.text_encoder, serving)
            install(encoder, args.text_encoder, models)
            print(f"placed {encoder.name}")
            load(args.triton, encoder, args.timeout)
        deploy(snapshots / version, args.build, models, args.triton, publish, serving, args.timeout)
    except (DeployError, PlacementError, layout.SnapshotError, PublicationRefused) as error:
        print(f"serendip deploy: {error}\nWhat was published before stays.", file=sys.stderr)
        return 1
    print(f"published {version}")
    if args.unload_unused:
        try:
            for name in unload_unused(args.triton, retained_models(snapshots), args.timeout):
                print(f"unloaded {name}")
        except (DeployError, layout.SnapshotError) as error:
            print(f"serendip deploy: {version} is published, but unused models stay loaded: {error}", file=sys.stderr)
            return 1
    return 0
