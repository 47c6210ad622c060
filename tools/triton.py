"""Run tritonserver on a model repository: an installed one, or the one packaged in nvidia-pytriton.

    serendip triton --models var/complete-journey/models

Listens on the loopback address unless told otherwise. Models are loaded and unloaded only on request (EXPLICIT
control); at the start every model of the repository is loaded, so that a restart serves what was served before.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import tritonclient.grpc as triton_grpc

from serendipity.tools.serving.triton_program import TritonError
from serendipity.tools.serving.triton_server import LOOPBACK, TritonServer, launch


def model_names(repository: Path) -> list[str]:
    """Models of a repository: its directories with a config.pbtxt, hidden ones (being placed) apart."""
    return sorted(p.parent.name for p in repository.glob("*/config.pbtxt") if not p.parent.name.startswith("."))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip triton`."""
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="model repository")
    parser.add_argument("--load", action="append", metavar="MODEL", help="load this model (repeatable; default: all)")
    parser.add_argument("--address", default=LOOPBACK, help="address to listen on")
    parser.add_argument("--grpc-port", type=int, default=8001, help="0: a free one")
    parser.add_argument("--http-port", type=int, default=8000, help="0: a free one")
    parser.add_argument("--metrics-port", type=int, default=8002, help="0: a free one")
    parser.add_argument("--log", type=Path, metavar="FILE", help="the server's output (default: a temporary file)")
    parser.add_argument("--start-timeout", type=float, default=60.0, metavar="SECONDS", help="until it must be ready")


def run(args: argparse.Namespace) -> int:
    """Run tritonserver until it ends or this process is told to (SIGINT, SIGTERM); a model that fails is reported."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        with launch(
            args.models,
            grpc_port=args.grpc_port,
            http_port=args.http_port,
            metrics_port=args.metrics_port,
            address=args.address,
            log_path=args.log,
            start_timeout=args.start_timeout,
        ) as server:
            print(
                f"tritonserver (pid {server.pid}): HTTP {server.url}, gRPC {server.grpc_url}, "
                f"metrics port {server.metrics_port}, log {server.log_path}",
                flush=True,
            )
            _load(server, model_names(args.models) if args.load is None else args.load)
            server.wait()
            server.check()
    except KeyboardInterrupt:
        return 0
    except TritonError as error:
        print(f"serendip triton: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _load(server: TritonServer, names: Sequence[str]) -> None:
    """Load models one by one; one that fails leaves the others serving."""
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    try:
        for name in names:
            try:
                client.load_model(name)
                print(f"loaded {name}", flush=True)
            except triton_grpc.InferenceServerException as error:
                server.check()
                print(f"serendip triton: {name}: not loaded: {error.message()}", file=sys.stderr, flush=True)
    finally:
        client.close()
