"""Run tritonserver on a model repository: an installed one, or the one packaged in nvidia-pytriton.

    serendip triton --models var/complete-journey/models

Listens on the loopback address unless told otherwise. Models are loaded and unloaded only on request (EXPLICIT
control); at the start every model of the repository is loaded, user towers first. A server that ends by itself is
started again, sooner the longer it ran, and serves what was served before; so is one that does not answer any more. A
model that does not answer is loaded again.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tritonclient.grpc as triton_grpc

from serendipity.features import TOWER_MODEL_PREFIX
from serendipity.tools.serving.canary import keep_answering
from serendipity.tools.serving.triton_program import TritonDown, TritonError
from serendipity.tools.serving.triton_server import LOOPBACK, TritonServer, launch, temporary_log
from serendipity.triton import fault_of

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 30.0
_HEALTHY_SECONDS = 60.0
"""With its models loaded: one that ran as long is started again as soon as the first that died."""


def model_names(repository: Path) -> list[str]:
    """Models of a repository in the order they are loaded in: user towers first, the one placed last before others.

    They are its directories with a config.pbtxt, hidden ones (being placed) apart.
    """
    placed = {p.parent.name: p.stat().st_mtime for p in repository.glob("*/config.pbtxt")}
    towers = {name: time for name, time in placed.items() if name.startswith(TOWER_MODEL_PREFIX)}
    others = {name for name in placed.keys() - towers if not name.startswith(".")}
    return sorted(towers, key=lambda name: -towers[name]) + sorted(others)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip triton`."""
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="model repository")
    parser.add_argument("--address", default=LOOPBACK, help="address to listen on")
    parser.add_argument("--grpc-port", type=int, default=8001, help="0: a free one")
    parser.add_argument("--http-port", type=int, default=8000, help="0: a free one")
    parser.add_argument("--metrics-port", type=int, default=8002, help="0: a free one")
    parser.add_argument("--log", type=Path, metavar="FILE", help="the server's output (default: a temporary file)")
    parser.add_argument("--start-timeout", type=float, default=60.0, metavar="SECONDS", help="until it must be ready")


def run(args: argparse.Namespace) -> int:
    """Keep tritonserver running until this process is told to end (SIGINT, SIGTERM); a model that fails is reported."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        _keep_running(args)
    except KeyboardInterrupt:
        return 0
    except TritonError as error:
        print(f"serendip triton: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def _keep_running(args: argparse.Namespace) -> NoReturn:
    """Start it again whenever it has ended. Raises TritonError when it cannot be started at all."""
    grpc_port, http_port, metrics_port = args.grpc_port, args.http_port, args.metrics_port
    log_path = args.log or temporary_log()
    wait = _FIRST_WAIT
    while True:
        healthy_since = math.inf
        try:
            with launch(
                args.models,
                grpc_port=grpc_port,
                http_port=http_port,
                metrics_port=metrics_port,
                address=args.address,
                log_path=log_path,
                start_timeout=args.start_timeout,
            ) as server:
                # Those that know where the first one listened look for the next one there.
                grpc_port, http_port, metrics_port = server.grpc_port, server.http_port, server.metrics_port
                print(
                    f"tritonserver (pid {server.pid}): HTTP {server.url}, gRPC {server.grpc_url}, "
                    f"metrics port {server.metrics_port}, log {server.log_path}",
                    flush=True,
                )
                _load(server, model_names(args.models))
                healthy_since = time.monotonic()
                asyncio.run(keep_answering(server, args.models))
        except (TritonDown, triton_grpc.InferenceServerException) as error:
            if time.monotonic() - healthy_since >= _HEALTHY_SECONDS:
                wait = _FIRST_WAIT
            print(f"serendip triton: {error}; starting it again in {wait:g} s", file=sys.stderr, flush=True)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)


def _load(server: TritonServer, names: Sequence[str]) -> None:
    """Load models one by one; one that fails leaves the others serving."""
    with triton_grpc.InferenceServerClient(server.grpc_url) as client:
        if fault := fault_of(client.get_server_metadata().version):
            print(f"serendip triton: warning: {fault}", file=sys.stderr, flush=True)
        for name in names:
            try:
                client.load_model(name)
                print(f"loaded {name}", flush=True)
            except triton_grpc.InferenceServerException as error:
                server.check()
                print(f"serendip triton: {name}: not loaded: {error.message()}", file=sys.stderr, flush=True)
