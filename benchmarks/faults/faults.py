"""The faults: each a function that injects one when its context begins, and heals it when the context ends.

To add one, write such a function and give it a row in FAULTS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.faults.site import (
    WORKERS,
    Site,
    Triton,
    running_site,
    site_on_a_small_disk,
    site_with_a_reader,
    until,
)
from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.errors import ClientError
from serendipity.channel.service.worker_status import read_statuses
from serendipity.channel.snapshot.publication import Publications

_SWAPS = 50
_BAD_REQUESTS = 1_000
_CONNECTIONS = 200

Notes = list[str]
"""What was seen beside the calls, in words."""
Inject = Callable[[Site, Notes], AbstractContextManager[None]]
Where = Callable[[Path, Path, Triton, Mapping[str, str]], AbstractContextManager[Site]]


@dataclass(frozen=True)
class Fault:
    """seconds: until it is healed; lasts: until then, so that recovery counts from there; where: it happens; options:
    settings of the service."""

    name: str
    inject: Inject
    seconds: float = 8.0
    lasts: bool = False
    where: Where = running_site
    options: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def kill_a_worker(site: Site, _: Notes) -> Iterator[None]:
    """SIGKILL, as the kernel does when memory runs out."""
    os.kill(site.workers()[0], signal.SIGKILL)
    yield


@contextlib.contextmanager
def stop_a_worker(site: Site, _: Notes) -> Iterator[None]:
    """SIGSTOP: its event loop stands still, its socket takes connections."""
    os.kill(site.workers()[0], signal.SIGSTOP)
    yield


@contextlib.contextmanager
def let_no_process_start(site: Site, notes: Notes) -> Iterator[None]:
    """Kill a worker while the supervisor can open no file more, as one has to that starts a process."""
    supervisor, victim = site.service.pid, site.workers()[0]
    limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    open_files = sum(1 for _ in Path(f"/proc/{supervisor}/fd").iterdir())
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (open_files, limits[1]))
    os.kill(victim, signal.SIGKILL)
    yield
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
    begin = time.monotonic()
    until(lambda: len(set(site.workers()) - {victim}) == WORKERS, "the killed worker's successor")
    notes.append(f"the worker's successor serves {time.monotonic() - begin:.1f} s after that")


@contextlib.contextmanager
def fill_the_disk(site: Site, notes: Notes) -> Iterator[None]:
    """Fill the disk of state and log, then kill every worker but one: the others start on a full disk."""
    victims, lines = site.workers(), site.log_lines()
    filling = site.state / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    for victim in victims[1:]:
        os.kill(victim, signal.SIGKILL)
    yield
    filling.unlink()
    notes.append(f"{site.log_lines() - lines} lines logged")


@contextlib.contextmanager
def stop_reading_the_log(site: Site, notes: Notes) -> Iterator[None]:
    """Leave standard error, a pipe, unread, with a line for every call."""
    site.read.clear()
    yield
    site.read.set()
    time.sleep(2.0)
    dropped = site.service.log_path.read_text(errors="replace").count("log lines dropped")
    notes.append(f"lines dropped and told {dropped} times")


@contextlib.contextmanager
def send_bad_requests(site: Site, notes: Notes) -> Iterator[None]:
    """A thousand requests that break a rule."""
    lines = site.log_lines()

    async def send() -> int:
        refused = 0
        async with AsyncSerendipityClient(site.service.address, timeout=5.0) as client:
            for _ in range(_BAD_REQUESTS):
                try:
                    await client.recall("", count=5)
                except ClientError as error:
                    refused += error.code is grpc.StatusCode.INVALID_ARGUMENT
        return refused

    refused = asyncio.run(send())
    yield
    notes.append(f"{refused:,} refused, {site.log_lines() - lines} lines logged")


@contextlib.contextmanager
def open_connections(site: Site, notes: Notes) -> Iterator[None]:
    """Two hundred connections that say nothing, under the usual limit of 64 files that a shell may set."""
    host, port = site.service.address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(_CONNECTIONS):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=5.0))
        with grpc.insecure_channel(site.service.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            begin = time.monotonic()
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10.0)
            notes.append(f"health says {answer.status} after {(time.monotonic() - begin) * 1e3:.0f} ms")
        yield
    limit = ("bash", "-c", 'ulimit -n 64; exec "$@"', "bash")
    notes.append(f"started with 64 files: {_serve(site, 'limited', limit=limit)}")


@contextlib.contextmanager
def start_a_second_service(site: Site, notes: Notes) -> Iterator[None]:
    """Another state directory, the same port."""
    notes.append(_serve(site, "second", "--address", site.service.address))
    yield


@contextlib.contextmanager
def take_the_metrics_port(site: Site, notes: Notes) -> Iterator[None]:
    """Kill a worker and take its port for metrics before its successor does."""
    victim = read_statuses(site.state / "workers")[0]
    os.kill(victim.pid, signal.SIGKILL)
    with contextlib.ExitStack() as stack:
        while True:
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", victim.metrics_port)))
                break
        yield
        until(lambda: len(set(site.workers()) - {victim.pid}) == WORKERS, "the killed worker's successor")
        (port,) = (s.metrics_port for s in read_statuses(site.state / "workers") if s.worker == victim.worker)
        notes.append("its successor serves " + ("with" if port else "without") + " metrics")


@contextlib.contextmanager
def kill_triton(site: Site, _: Notes) -> Iterator[None]:
    """SIGKILL of tritonserver."""
    os.kill(site.triton.pid, signal.SIGKILL)
    yield


@contextlib.contextmanager
def stop_triton(site: Site, _: Notes) -> Iterator[None]:
    """SIGSTOP of tritonserver: connections stay, answers do not come."""
    os.kill(site.triton.pid, signal.SIGSTOP)
    yield
    os.kill(site.triton.pid, signal.SIGCONT)


@contextlib.contextmanager
def kill_the_stubs(site: Site, notes: Notes) -> Iterator[None]:
    """SIGKILL of the Python processes behind the user tower, which Triton goes on calling ready."""
    said = len(site.triton.lines)
    for pid in site.triton.stubs():
        os.kill(pid, signal.SIGKILL)
    yield
    until(lambda: any(line.startswith("loaded ") for line in site.triton.lines[said:]), "the user tower")
    notes.append("serendip triton: loaded again")


@contextlib.contextmanager
def swap_snapshots(site: Site, notes: Notes) -> Iterator[None]:
    """Publish two snapshots in turn, fifty times, each once all workers serve the one before."""
    publications = Publications(site.build / "snapshots")
    first = publications.wanted()
    second = _copy(site.build / "snapshots", first)
    begin = time.monotonic()
    for number in range(_SWAPS):
        version = (second, first)[number % 2]
        publications.publish(version)
        until(partial(_serves, site, version), "the swap")
    notes.append(f"{_SWAPS} swaps in {time.monotonic() - begin:.0f} s")
    yield


def _serves(site: Site, version: str) -> bool:
    return site.served() == {version}


def _copy(snapshots: Path, version: str) -> str:
    """Place a snapshot under another version; returns that."""
    name = f"{version}-copy"
    directory = snapshots / name
    if not directory.exists():
        subprocess.run(["cp", "-r", str(snapshots / version), str(directory)], check=True)
        manifest = layout.read_manifest(directory)
        manifest.version = name
        layout.write_manifest(directory, manifest)
    return name


def _serve(site: Site, state: str, *options: str, limit: Sequence[str] = ()) -> str:
    """Start another service beside, by a command that limits it; returns how it ended."""
    settings = ["--build", str(site.build), "--state", str(site.state.with_name(state)), "--workers", "1"]
    ports = ["--admin-address", "127.0.0.1:0", "--address", "127.0.0.1:0", "--metrics-port", "0"]
    command = [*limit, sys.executable, "-m", "serendipity.tools.cli", "serve", *settings, *ports, *options]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return "it was not refused"
    said = (ended.stderr.strip().splitlines() or ["nothing"])[-1]
    return f"status {ended.returncode}: `{said.replace(str(site.state.parent), '…')}`"


FAULTS = (
    Fault("a worker killed (SIGKILL)", kill_a_worker),
    Fault("a worker stopped (SIGSTOP)", stop_a_worker),
    Fault("a worker killed, and none can be started for 8 s", let_no_process_start, lasts=True),
    Fault("disk of state and log full for 15 s, a worker killed", fill_the_disk, 15.0, True, site_on_a_small_disk),
    Fault("standard error unread for 15 s, every call logged", stop_reading_the_log, 15.0, True, site_with_a_reader),
    Fault("a thousand bad requests", send_bad_requests, 3.0),
    Fault("two hundred idle connections", open_connections, 3.0),
    Fault("a second service on the same port", start_a_second_service, 1.0),
    Fault("a worker killed, its metrics port taken", take_the_metrics_port, options={"metrics_port": "19464"}),
    Fault("Triton killed (SIGKILL)", kill_triton),
    Fault("Triton stopped (SIGSTOP) for 8 s", stop_triton, lasts=True),
    Fault("the processes behind the user tower killed", kill_the_stubs),
    Fault("fifty swaps of the snapshot", swap_snapshots, 0.0),
)
