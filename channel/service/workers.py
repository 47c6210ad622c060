"""The service: one process that supervises the workers and answers operators.

    serve(ServerSettings(snapshots=…, state=…))        returns when SIGTERM or SIGINT has been obeyed

Workers are spawned, never forked: gRPC and LMDB must not cross a fork. They share one port (SO_REUSEPORT). Beside them
runs the near-line process. Whichever dies is restarted, sooner the longer it lived.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess

import structlog

from serendipity import layout
from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.process import run_nearline
from serendipity.channel.service.admin import AdminServicer, create_admin_server
from serendipity.channel.service.processes import held, told_to_stop
from serendipity.channel.service.readiness import model_is_ready
from serendipity.channel.service.settings import ServerSettings, split_address
from serendipity.channel.service.telemetry import configure_logs
from serendipity.channel.service.worker import run_worker
from serendipity.channel.service.worker_status import forget
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.publication import Check, Publications
from serendipity.channel.snapshot.trial_opening import can_be_opened

_FIRST_BACK_OFF = 0.2
_LONGEST_BACK_OFF = 30.0
_STABLE_SECONDS = 60.0
_KILL_MARGIN_SECONDS = 5.0

_log = structlog.stdlib.get_logger(__name__)


def serve(
    settings: ServerSettings, channel_settings: ChannelSettings | None = None, gates: Sequence[Check] = ()
) -> int:
    """Run the service until it is told to stop; returns the exit status, 0 after a clean drain.

    gates: asked, after whether the model is ready, before the admin service publishes a snapshot; not to roll back.
    Raises StateUnavailable when another service uses the state directory, OSError when an address cannot be bound.
    """
    configure_logs(settings.log_level, settings.log_format)
    pipeline = channel_settings or ChannelSettings()
    with held(settings.state / ".lock") as alone:
        if not alone:
            # Two services would overwrite each other's workers' states.
            raise StateUnavailable(f"{settings.state}: another service uses this state directory")
        with _reserved(settings.address) as address:
            return asyncio.run(_supervise_until_stopped(settings, pipeline, address, gates))


async def _supervise_until_stopped(
    settings: ServerSettings, channel_settings: ChannelSettings, address: str, gates: Sequence[Check]
) -> int:
    with told_to_stop() as stop:
        return await _supervise(settings, channel_settings, address, gates, stop)


async def _supervise(
    settings: ServerSettings,
    channel_settings: ChannelSettings,
    address: str,
    gates: Sequence[Check],
    stop: asyncio.Event,
) -> int:
    forget(settings.workers_path)
    publications = Publications(settings.snapshots, checks=_checks(settings, channel_settings), gates=gates)
    admin, health, admin_port = create_admin_server(AdminServicer(publications, settings), settings)
    await admin.start()
    await health.set_serving(True)
    children = [
        _Child(
            f"worker-{number}",
            run_worker,
            (settings, channel_settings, address, number),
            functools.partial(forget, settings.workers_path, number),
        )
        for number in range(settings.workers)
    ]
    if settings.nearline:
        children.append(_Child("nearline", run_nearline, (settings, channel_settings)))
    kept_alive = [
        asyncio.create_task(_keep_alive(child, stop, settings.drain_seconds + _KILL_MARGIN_SECONDS))
        for child in children
    ]
    admin_address = f"{settings.admin_address.rpartition(':')[0]}:{admin_port}"
    endpoints = {"address": address, "admin_address": admin_address, "pid": os.getpid()}
    layout.write_atomically(settings.endpoints_path, json.dumps(endpoints).encode())
    _log.info("service serves", **endpoints, workers=settings.workers)
    try:
        statuses = await asyncio.gather(*kept_alive)
    finally:
        await health.stop()
        await admin.stop(1.0)
        settings.endpoints_path.unlink(missing_ok=True)
    _log.info("service ends", exit_statuses=statuses)
    return max(map(abs, statuses), default=0)


@dataclass(frozen=True)
class _Child:
    """A process kept alive. died: called when it has ended by itself."""

    name: str
    target: Callable[..., None]
    args: tuple[object, ...]
    died: Callable[[], None] = lambda: None


async def _keep_alive(child: _Child, stop: asyncio.Event, patience: float) -> int:
    """Run a child, again whenever it dies, until told to stop; returns its last exit status."""
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    back_off = _FIRST_BACK_OFF
    stopping = asyncio.create_task(stop.wait())
    while True:
        process = context.Process(target=child.target, args=child.args, name=child.name)
        process.start()
        started = loop.time()
        ended = asyncio.create_task(_ended(process))
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return await _stop(process, ended, patience)
        child.died()
        if loop.time() - started >= _STABLE_SECONDS:
            back_off = _FIRST_BACK_OFF
        _log.error("process died", process=child.name, exit_status=process.exitcode, restart_in=back_off)
        process.close()
        await asyncio.wait((stopping,), timeout=back_off)
        back_off = min(2 * back_off, _LONGEST_BACK_OFF)
        if stop.is_set():
            return 0


async def _stop(process: SpawnProcess, ended: asyncio.Task[None], patience: float) -> int:
    """Ask a child to drain, and kill it only when it does not end in time."""
    process.terminate()
    done, _ = await asyncio.wait((ended,), timeout=patience)
    if not done:
        _log.error("process killed: it did not drain in time", process=process.name, seconds=patience)
        process.kill()
        await ended
    # Told before it had its handlers, a child had not begun to serve: nothing was cut short.
    return 0 if process.exitcode == -signal.SIGTERM else process.exitcode or 0


async def _ended(process: SpawnProcess) -> None:
    """Wait until a process has ended."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(process.sentinel, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


def _checks(settings: ServerSettings, channel_settings: ChannelSettings) -> list[Check]:
    checks = [can_be_opened(settings.snapshots)]
    if settings.require_ready_model and settings.user_tower_path is None:
        checks.append(model_is_ready(channel_settings.triton_url))
    return checks


@contextlib.contextmanager
def _reserved(address: str) -> Iterator[str]:
    """Hold the workers' port while they come and go, and yield the address with its port.

    The socket is bound and never listens, so that no connection reaches it.
    """
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"{address}: cannot be bound ({error.strerror})") from error
        yield f"{address.rpartition(':')[0]}:{holder.getsockname()[1]}"
