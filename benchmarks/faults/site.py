"""Where faults happen: the service with two workers, and `serendip triton` with the user tower, as processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

from benchmarks.processes import ProcessTree
from benchmarks.systems import channel_options
from serendipity import layout
from serendipity.channel.service.worker_status import read_statuses
from serendipity.tools.service import Service, ServiceError
from serendipity.tools.serving.kinds import user_tower
from serendipity.tools.serving.repository import install
from serendipity.v1 import admin_pb2, admin_pb2_grpc

WORKERS = 2
_PATIENCE = 180.0
_PIPE_BYTES = 4_096


class Triton:
    """`serendip triton` as a child process. url: of HTTP; lines: what it said."""

    def __init__(self, models: Path, log: Path) -> None:
        ports = [part for name in ("grpc", "http", "metrics") for part in (f"--{name}-port", "0")]
        command = [sys.executable, "-m", "serendipity.tools.cli", "triton", "--models", str(models), "--log", str(log)]
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: any(line.startswith("loaded ") for line in self.lines), "Triton")
        self.url = next(found[1] for line in self.lines if (found := re.search(r"HTTP (\S+),", line)))

    @property
    def pid(self) -> int:
        """Process id of the tritonserver that runs now, or ran last."""
        return int([found[1] for line in self.lines if (found := re.search(r"^tritonserver \(pid (\d+)\)", line))][-1])

    def stubs(self) -> list[int]:
        """Process ids of the Python processes behind its models."""
        return [pid for pid in ProcessTree.of(self.pid).pids if b"python_backend_stub" in _command_of(pid)]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())


@dataclass(frozen=True)
class Site:
    """build: with the snapshot; state: of the service; service, triton: that run; read: while it is set, somebody reads
    what the service says."""

    build: Path
    state: Path
    service: Service
    triton: Triton
    read: threading.Event = field(default_factory=threading.Event)

    def workers(self) -> list[int]:
        """Process ids of the workers that serve, as they have written them down."""
        return [status.pid for status in read_statuses(self.state / "workers") if status.version]

    def log_lines(self) -> int:
        """Lines the service has written."""
        return self.service.log_path.read_bytes().count(b"\n")

    def served(self) -> set[str]:
        """Versions that the workers serve, as the admin service tells them."""
        with grpc.insecure_channel(self.service.admin_address) as connection:
            stub = admin_pb2_grpc.SerendipityAdminStub(connection)  # type: ignore[no-untyped-call]
            return {worker.version for worker in stub.GetSnapshot(admin_pb2.GetSnapshotRequest(), timeout=10).workers}


@contextlib.contextmanager
def running_triton(build: Path, scratch: Path) -> Iterator[Triton]:
    """Run `serendip triton` with the user tower of a build's published snapshot."""
    manifest = layout.read_manifest(build / "snapshots" / layout.CURRENT)
    models = scratch / "models"
    install(user_tower(manifest.tower, manifest.vector_index.dim), build / "towers", models)
    triton = Triton(models, scratch / "triton.log")
    try:
        yield triton
    finally:
        triton.stop()


@contextlib.contextmanager
def running_site(build: Path, state: Path, triton: Triton, options: Mapping[str, str]) -> Iterator[Site]:
    """Run the service on a build. options: settings beside those of the benchmarks."""
    state.mkdir(parents=True, exist_ok=True)
    log = state / "service.log"
    with log.open("wb") as errors, _serving(build, state, triton, options, errors.fileno(), log) as site:
        yield site


@contextlib.contextmanager
def site_on_a_small_disk(build: Path, state: Path, triton: Triton, options: Mapping[str, str]) -> Iterator[Site]:
    """Run it with its state and its log on a file system of a few MB. Needs the right to mount one."""
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(state)], check=True)
    try:
        with running_site(build, state, triton, options) as site:
            yield site
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


@contextlib.contextmanager
def site_with_a_reader(build: Path, state: Path, triton: Triton, options: Mapping[str, str]) -> Iterator[Site]:
    """Run it with every call logged, to a small pipe that somebody reads for as long as `Site.read` is set."""
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    log, reading = state.with_suffix(".log"), threading.Event()
    reading.set()
    threading.Thread(target=_read, args=(ours, log, reading), daemon=True).start()
    try:
        with _serving(build, state, triton, {**options, "log_level": "debug"}, its, log) as site:
            yield replace(site, read=reading)
    finally:
        os.close(its)


@contextlib.contextmanager
def _serving(
    build: Path, state: Path, triton: Triton, options: Mapping[str, str], errors: int, log: Path
) -> Iterator[Site]:
    # As it comes, but for what a measurement of a snapshot of the past needs.
    measured = channel_options(state)
    addresses = {"address": "127.0.0.1:0", "admin_address": "127.0.0.1:0", "metrics_port": "0"}
    settings = {**measured, **addresses, "build": str(build), "triton_url": triton.url, "workers": str(WORKERS)}
    settings |= {"snapshot_poll_seconds": "0.2", **options}
    arguments = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    command = [sys.executable, "-m", "serendipity.tools.cli", "serve", *arguments]
    # A session of its own, as it has where it runs for real: what one shares of the machine goes by that.
    process = subprocess.Popen(command, stderr=errors, start_new_session=True)
    service = Service(process, "", "", log)
    site = Site(build, state, service, triton)
    try:
        until(lambda: len(site.workers()) == WORKERS, "the workers")
        found = json.loads((state / "endpoints.json").read_bytes())
        service.address, service.admin_address = found["address"], found["admin_address"]
        yield site
    finally:
        site.read.set()
        service.stop()


def _read(descriptor: int, log: Path, reading: threading.Event) -> None:
    with os.fdopen(descriptor, "rb", buffering=0) as pipe, log.open("wb") as file:
        while reading.wait() and (some := pipe.read(_PIPE_BYTES)):
            file.write(some)
            file.flush()


def until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until something holds. Raises ServiceError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceError(f"{what}: not so within {seconds:g} s")
        time.sleep(0.05)


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
