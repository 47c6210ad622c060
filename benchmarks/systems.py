"""What is measured, as processes: started on free loopback ports, found, and stopped by whoever started them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import tritonclient.grpc as triton_grpc

from benchmarks import floor, plain_tower
from benchmarks.processes import ProcessTree, Running
from serendipity import layout
from serendipity.tools.service import launch_service
from serendipity.tools.serving.deployment import load
from serendipity.tools.serving.kinds import user_tower
from serendipity.tools.serving.repository import install
from serendipity.tools.serving.triton_server import launch

_ROOT = Path(__file__).resolve().parents[1]
_STOP_SECONDS = 10.0


class SystemStartError(Exception):
    """A system did not come up: says which."""


@contextmanager
def triton_with_towers(*builds: Path) -> Iterator[Running]:
    """Run one Triton that serves the user towers of builds' published snapshots, and the plain stack's of the first."""
    manifests = [layout.read_manifest(build / "snapshots" / layout.CURRENT) for build in builds]
    with ExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-models-")))
        plain_tower.place(builds[0], manifests[0].tower, models)
        for build, manifest in zip(builds, manifests, strict=True):
            model = user_tower(manifest.tower, manifest.vector_index.dim)
            install(model, build / "towers", models)
        triton = stack.enter_context(launch(models))
        for manifest in manifests:
            load(triton.grpc_url, user_tower(manifest.tower, manifest.vector_index.dim))
        triton_grpc.InferenceServerClient(triton.grpc_url).load_model(plain_tower.NAME)
        yield Running(triton.url, ProcessTree.of(triton.pid), triton.grpc_url)


def channel_options(state: Path) -> dict[str, str]:
    """Settings that a channel is measured under: as it comes, as of the snapshot's moment, every answer made anew."""
    return {
        "clock": "snapshot",
        "state": str(state),
        "default_deadline_ms": "5000",
        "nearline": "false",
        "snapshot_retention_days": "0",
        # The plain stack tries nothing out.
        "explored_share": "0",
    }


@contextmanager
def channel(build: Path, triton: str, options: Mapping[str, str], workers: int = 1) -> Iterator[Running]:
    """Run the channel on a build. options: settings, of which `state` is a directory of its own."""
    with launch_service(build, triton, workers=workers, options=options) as service:
        yield Running(service.address, ProcessTree.of(service.pid), service.admin_address)


@contextmanager
def plain_stack(snapshot: Path, triton: str, state: Path, *, channels_tower: bool = False) -> Iterator[Running]:
    """Run benchmarks.plain_stack on a snapshot directory, with its own tower or with the channel's."""
    state.mkdir(parents=True, exist_ok=True)
    arguments = ["--snapshot", str(snapshot.resolve()), "--triton", triton, "--state", str(state.resolve())]
    if channels_tower:
        arguments.append("--channels-tower")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.plain_stack", *arguments], stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise SystemStartError(f"the plain stack ended with status {process.wait()}")
        yield Running(f"127.0.0.1:{port}", ProcessTree.of(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def bare_floor(snapshot: Path, triton: str) -> Iterator[tuple[Connection, ProcessTree]]:
    """Run benchmarks.floor on a snapshot directory, at the other end of a connection."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=floor.serve, args=(its, snapshot.resolve(), triton), name="floor")
    process.start()
    its.close()
    try:
        assert process.pid is not None
        yield ours, ProcessTree.of(process.pid)
    finally:
        ours.close()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
