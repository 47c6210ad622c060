"""One worker process: opens what it needs, serves until told to stop, finishes what is in flight, closes all of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import structlog
import uvloop
from threadpoolctl import threadpool_limits

from serendipity.channel.nearline.store import open_nearline
from serendipity.channel.recall.recall import Channel
from serendipity.channel.service.housekeeping import run_housekeeping
from serendipity.channel.service.listening import Health
from serendipity.channel.service.processes import logged_failures, run_until_stopped
from serendipity.channel.service.server import SERVICE, Parts, serving_channel
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.telemetry import Telemetry
from serendipity.channel.service.tracing import Tracing, open_tracing
from serendipity.channel.service.worker_status import WorkerStatus, write_status
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.watcher import Served, SnapshotWatcher
from serendipity.channel.state.availability import AvailabilityReader, AvailabilityStore
from serendipity.channel.state.environment import make_private
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.feedback_event import Ownership
from serendipity.channel.state.host_clock import HostClock
from serendipity.channel.state.reopening import Reopening
from serendipity.channel.state.serving_log import ServingLog
from serendipity.channel.state.state import AvailabilityOverlay, UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.channel.tower.tower import UserTower
from serendipity.channel.tower.triton import TritonTower
from serendipity.triton import Triton, TritonError, fault_of

_SWITCH_SECONDS = 0.002
_TRITON_SECONDS = 10.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Worker:
    """A running worker. port, health_port, metrics_port: those bound; health_port: 0 without TLS."""

    number: int
    port: int
    health_port: int
    metrics_port: int


@contextlib.asynccontextmanager
async def running_worker(
    settings: ServerSettings, channel_settings: ChannelSettings, number: int = 0
) -> AsyncIterator[Worker]:
    """Serve until the context ends; then drain within `drain_seconds` and close.

    Raises StateUnavailable or OSError when it cannot start. Until there is a snapshot that can be served it waits,
    without listening.
    """
    async with contextlib.AsyncExitStack() as stack:
        telemetry = Telemetry()
        clock = HostClock(settings.clock_path)
        # In a thread: a disk that is slow must not make the event loop seem to hang.
        parts = await asyncio.to_thread(_open_parts, settings, channel_settings, number, telemetry, clock, stack)
        port = settings.metrics_port and settings.metrics_port + number
        stack.callback(telemetry.serve(settings.metrics_host, port))
        health = Health(SERVICE)
        await health.set_serving(False)

        async def on_change(served: Served, snapshot: Snapshot | None) -> None:
            if snapshot is not None:
                telemetry.snapshot_served(snapshot.versions, served.seconds)
                warn_of_old_events(snapshot, channel_settings, clock.now())
            elif served.error:
                telemetry.snapshot_refused()
            await health.set_serving(bool(served.version))
            status = WorkerStatus(
                number, os.getpid(), served.version, served.since, served.error, telemetry.metrics_port
            )
            with logged_failures("status"):
                write_status(settings.workers_path, status)

        publications = Publications(settings.snapshots)
        watcher = SnapshotWatcher(
            publications,
            parts.holder,
            on_change=on_change,
            poll=settings.snapshot_poll_seconds,
            gpu=channel_settings.gpu,
        )
        await on_change(watcher.served, None)
        # Before the port is open: a worker that was restarted must not draw calls it cannot answer.
        await watcher.converge()
        if not watcher.served.version:
            _log.error("no snapshot can be served: not listening until there is one", snapshots=str(settings.snapshots))
        while not watcher.served.version:
            await asyncio.sleep(settings.snapshot_poll_seconds)
            await watcher.converge()
        ports = await stack.enter_async_context(serving_channel(parts, health))
        tasks = [asyncio.create_task(watcher.run())]
        if number == 0:
            tasks.append(asyncio.create_task(run_housekeeping(parts, publications, clock)))
            if settings.user_tower_path is None:
                tasks.append(asyncio.create_task(_warn_of_old_triton(channel_settings.triton_url)))
        try:
            yield Worker(number, ports.main, ports.health, telemetry.metrics_port)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def warn_of_old_events(snapshot: Snapshot, settings: ChannelSettings, now: float) -> None:
    """Log that a snapshot's interests are too old to be served, as those of a data set of the past are by the clock."""
    days = (now - snapshot.events_until) / 86_400
    if settings.clock == "wall" and days > settings.interest_hard_age_days:
        _log.warning(
            "interests of the snapshot are too old to be served; a data set of the past needs --clock snapshot",
            version=snapshot.version,
            days_since_its_events=round(days, 1),
            interest_hard_age_days=settings.interest_hard_age_days,
        )


def run_worker(
    settings: ServerSettings, channel_settings: ChannelSettings, number: int, heartbeat: Connection | None = None
) -> None:
    """Run worker `number` until SIGTERM, SIGINT or the end of the parent. The target of a spawned process."""
    # Requests are searched side by side; BLAS and OpenMP threads of each would only wait for those of the others.
    threadpool_limits(limits=1)
    # The event loop must not wait 5 ms, Python's default, whenever the search thread or one that opens a snapshot runs.
    sys.setswitchinterval(_SWITCH_SECONDS)

    async def work(stop: asyncio.Event) -> None:
        await _serve_until_stopped(settings, channel_settings, number, stop)

    # uvloop's event loop: some 15 % more calls a second.
    run_until_stopped(number, settings, work, heartbeat, uvloop.new_event_loop)


async def _serve_until_stopped(
    settings: ServerSettings, channel_settings: ChannelSettings, number: int, stop: asyncio.Event
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        starting = stack.enter_async_context(running_worker(settings, channel_settings, number))
        worker = await _unless_stopped(stop, starting)
        if worker is not None:
            ports = {"port": worker.port, "metrics_port": worker.metrics_port}
            _log.info("worker serves", address=settings.address, **ports, pid=os.getpid())
            await stop.wait()
            _log.info("worker drains")
    _log.info("worker ends")


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, Worker]) -> Worker | None:
    """Do some work and return its result; None when it was told to stop before, which cancels it."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopping.cancel()
        return working.result()
    working.cancel()
    await asyncio.wait((working,))
    return None


async def _warn_of_old_triton(url: str) -> None:
    triton = Triton(url)
    try:
        if fault := fault_of(await triton.wait(triton.version(), _TRITON_SECONDS)):
            _log.warning("old Triton", url=triton.url, fault=fault)
    except TritonError as error:
        _log.warning("Triton's version is not known", url=triton.url, error=str(error))
    finally:
        await triton.close()


def _open_parts(
    settings: ServerSettings,
    channel_settings: ChannelSettings,
    number: int,
    telemetry: Telemetry,
    clock: HostClock,
    stack: contextlib.AsyncExitStack,
) -> Parts:
    """Open stores, logs and pipeline; the stack closes them, last opened first."""
    with logged_failures("state"):
        make_private(settings.state)
    erasures = Reopening("erasures", lambda: ErasureList(settings.erasures_path))
    stack.callback(erasures.close)
    ownership = Ownership(settings.shard, settings.num_shards)
    feedback = Reopening(
        "feedback",
        lambda: FeedbackStore(
            settings.feedback_path,
            ownership=ownership,
            is_forgotten=lambda user_id: erasures.store().contains(user_id),
            map_bytes=settings.feedback_map_bytes,
            clock=clock.now,
        ),
    )
    stack.callback(feedback.close)
    with logged_failures("clock"):
        clock.begin(feedback.store().last_recorded())
    nearline = Reopening("nearline", lambda: open_nearline(settings))
    stack.callback(nearline.close)
    holder = SnapshotHolder()
    stack.callback(holder.close)

    def on_change(overlay: AvailabilityOverlay) -> None:
        holder.prepare(overlay)
        telemetry.availability_generation(overlay.generation)

    availability = Reopening("availability", lambda: AvailabilityStore(settings.availability_path, clock=clock.now))
    stack.callback(availability.close)
    overlay = AvailabilityReader(
        availability.store,
        on_change=on_change,
        on_error=lambda error: _log.warning("availability not refreshed", error=str(error)),
    )
    stack.callback(overlay.close)
    serving_log = ServingLog(settings.serving_log_path, worker=number, on_drop=telemetry.serving_log_dropped)
    stack.callback(serving_log.close)
    for store in (erasures, feedback, nearline, availability):
        telemetry.watch_store(store.name, partial(_is_open, store))
    tracing = open_tracing()
    if tracing is not None:
        stack.callback(tracing.close)
    tower = _tower(settings, channel_settings, telemetry, tracing)
    stack.push_async_callback(tower.close)
    state = UserState(
        feedback.store,
        overlay.overlay,
        nearline.store,
        erasures.store,
        ownership=ownership,
        want_interval=channel_settings.interest_want_seconds,
    )
    channel = Channel(holder, tower, state, channel_settings)
    stack.callback(channel.close)
    return Parts(
        channel=channel,
        holder=holder,
        feedback=feedback,
        availability=availability,
        overlay=overlay,
        serving_log=serving_log,
        telemetry=telemetry,
        settings=settings,
        tracing=tracing,
    )


def _is_open(store: Reopening[Any]) -> bool:
    return store.is_open


def _tower(
    settings: ServerSettings, channel_settings: ChannelSettings, telemetry: Telemetry, tracing: Tracing | None
) -> UserTower:
    if settings.user_tower_path is not None:
        return LocalTower(settings.user_tower_path)
    headers: Callable[[], str] = tracing.headers if tracing is not None else str
    tower = TritonTower(channel_settings.triton_url, channel_settings, telemetry.tower_called, headers)
    telemetry.watch_tower(lambda: tower.is_held_back)
    return tower
