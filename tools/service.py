"""A channel service as a child process: started on free loopback ports, waited for, and stopped by its own pid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_POLL_SECONDS = 0.05


class ServiceError(Exception):
    """The service did not come up: says so with the last lines it wrote."""


class Service:
    """`serendip serve` running as a child.

    address, admin_address: host:port of the channel and of the admin service; log_path: what it writes.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str, admin_address: str, log_path: Path) -> None:
        self._process = process
        self.address = address
        self.admin_address = admin_address
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    def stop(self, timeout: float = 30.0) -> int:
        """Ask it to drain and wait; returns its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def launch_service(
    build: Path, triton_url: str, *, workers: int = 1, options: Mapping[str, str] | None = None, timeout: float = 60.0
) -> Service:
    """Start a service on a build directory and wait until every part of it answers.

    build: directory with snapshots/; triton_url: Triton's address; options: further settings, field → value;
    timeout: seconds until it must serve. Raises ServiceError.
    """
    settings = {
        "build": str(build),
        "triton_url": triton_url,
        "workers": str(workers),
        "address": "127.0.0.1:0",
        "admin_address": "127.0.0.1:0",
        "metrics_port": "0",
        **(options or {}),
    }
    endpoints = Path(settings.get("state", str(build / "state"))) / "endpoints.json"
    endpoints.parent.mkdir(parents=True, exist_ok=True)
    endpoints.unlink(missing_ok=True)
    log_path = endpoints.with_name("service.log")
    arguments = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serendipity.tools.cli", "serve", *arguments], stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + timeout
    try:
        found = _endpoints(process, endpoints, log_path, deadline)
        _wait_until_serving(process, found.get("health_address", found["address"]), log_path, deadline)
    except BaseException:
        Service(process, "", "", log_path).stop()
        raise
    return Service(process, found["address"], found["admin_address"], log_path)


def _endpoints(process: subprocess.Popen[bytes], path: Path, log_path: Path, deadline: float) -> dict[str, str]:
    while not path.exists():
        _check(process, log_path, deadline)
        time.sleep(_POLL_SECONDS)
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _wait_until_serving(process: subprocess.Popen[bytes], address: str, log_path: Path, deadline: float) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            _check(process, log_path, deadline)
            try:
                if stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0).status == 1:
                    return
            except grpc.RpcError:
                pass
            time.sleep(_POLL_SECONDS)


def _check(process: subprocess.Popen[bytes], log_path: Path, deadline: float) -> None:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    if process.poll() is not None:
        raise ServiceError(f"serendip serve ended with status {process.returncode}; it wrote:\n" + "\n".join(lines))
    if time.monotonic() > deadline:
        raise ServiceError("serendip serve is not serving in time; it wrote:\n" + "\n".join(lines))
