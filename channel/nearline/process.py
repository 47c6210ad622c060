"""The near-line process: the one process of a host that generates what its workers want, one loop for each kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import structlog

from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.channel.nearline.housekeeping import Cleared, clear, forget
from serendipity.channel.nearline.interest_gpt import InterestGpt, TritonTextEncoder
from serendipity.channel.nearline.interest_job import InterestJob
from serendipity.channel.nearline.job import Job
from serendipity.channel.nearline.list_job import ListJob
from serendipity.channel.nearline.loop import NearlineLoop, generation_moment
from serendipity.channel.nearline.store import NearlineStore, open_nearline
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.nearline.telemetry import NearlineTelemetry
from serendipity.channel.service.processes import held, logged_failures, run_until_stopped
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.watcher import Served, SnapshotWatcher
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.host_clock import HostClock

_HOUSEKEEPING_SECONDS = 3_600.0
_LOCK_POLL_SECONDS = 1.0
_DAY = 86_400.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Nearline:
    """What the work needs, opened.

    telemetry: told of every batch; watcher: follows the wanted snapshot; loops: by kind.
    """

    store: NearlineStore
    clock: HostClock
    erasures: ErasureList
    holder: SnapshotHolder
    watcher: SnapshotWatcher
    publications: Publications
    loops: Mapping[Kind, NearlineLoop[Any]]
    telemetry: NearlineTelemetry


@contextlib.asynccontextmanager
async def opened_nearline(settings: ServerSettings, channel_settings: ChannelSettings) -> AsyncIterator[Nearline]:
    """Open the stores, the snapshot wanted and the clients of Triton, and close them in the end.

    Raises StateUnavailable. Without a snapshot, or with a bad one, nothing can be generated until there is a good one.
    """
    async with contextlib.AsyncExitStack() as stack:
        store = open_nearline(settings)
        stack.callback(store.close)
        erasures = ErasureList(settings.erasures_path)
        stack.callback(erasures.close)
        feedback = FeedbackStore(settings.feedback_path, map_bytes=settings.feedback_map_bytes)
        stack.callback(feedback.close)
        holder = SnapshotHolder()
        stack.callback(holder.close)
        telemetry = NearlineTelemetry(store)
        loops: dict[Kind, NearlineLoop[Any]] = {}
        for kind, open_job in _jobs(stack, feedback, settings, channel_settings).items():
            loops[kind] = NearlineLoop(
                store,
                kind,
                open_job,
                holder,
                erasures.contains,
                channel_settings,
                telemetry,
                batch=settings.nearline_batch,
                poll=settings.nearline_poll_seconds,
                longest_pause=settings.nearline_retry_seconds,
            )
            stack.callback(loops[kind].close)
        publications = Publications(settings.snapshots)

        async def on_change(_: Served, snapshot: Snapshot | None) -> None:
            if snapshot is not None:
                telemetry.serves(snapshot)

        watcher = SnapshotWatcher(
            publications,
            holder,
            on_change=on_change,
            poll=settings.snapshot_poll_seconds,
        )
        await watcher.converge()
        clock = HostClock(settings.clock_path)
        with logged_failures("clock"):
            clock.begin(feedback.last_recorded())
        yield Nearline(store, clock, erasures, holder, watcher, publications, loops, telemetry)


@contextlib.asynccontextmanager
async def running_nearline(
    settings: ServerSettings,
    channel_settings: ChannelSettings,
    *,
    on_failure: Callable[[], None] = lambda: None,
) -> AsyncIterator[Nearline]:
    """Work until the context ends; then finish the batches in progress within `drain_seconds`, or leave them queued.

    The caller holds the host's lock (`exclusive`). on_failure: called when a task has failed with an unexpected error;
    the context should end then, and raises that error. Raises StateUnavailable, and OSError when the port is taken.
    """
    async with (
        opened_nearline(settings, channel_settings) as nearline,
        contextlib.AsyncExitStack() as stack,
    ):
        # The workers have the ports before it.
        port = settings.metrics_port and settings.metrics_port + settings.workers
        stack.callback(nearline.telemetry.serve(settings.metrics_host, port))
        stop = asyncio.Event()
        working = [asyncio.create_task(loop.run(stop), name=kind) for kind, loop in nearline.loops.items()]
        others = [
            asyncio.create_task(nearline.watcher.run(), name="snapshots"),
            asyncio.create_task(_run_housekeeping(nearline, channel_settings), name="housekeeping"),
        ]
        for task in (*working, *others):
            task.add_done_callback(partial(_ended, on_failure))
        try:
            yield nearline
        finally:
            stop.set()
            await asyncio.wait(working, timeout=settings.drain_seconds)
            for task in (*working, *others):
                task.cancel()
            ends = await asyncio.gather(*working, *others, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end


def run_nearline(
    settings: ServerSettings, channel_settings: ChannelSettings, heartbeat: Connection | None = None
) -> None:
    """Run the near-line process until SIGTERM, SIGINT or the end of the parent. The target of a spawned process.

    Ends with status 1 after the unexpected error of any task, for the supervisor to restart the process: the other
    tasks do not do its work.
    """

    async def work(stop: asyncio.Event) -> None:
        await _work_until_stopped(settings, channel_settings, stop)

    run_until_stopped("nearline", settings, work, heartbeat)


def exclusive(settings: ServerSettings) -> contextlib.AbstractContextManager[bool]:
    """Hold the right to do this host's near-line work; False if another process has it. Raises StateUnavailable."""
    return held(settings.nearline_lock_path)


async def _work_until_stopped(settings: ServerSettings, channel_settings: ChannelSettings, stop: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if await _take_turn(settings, stop, stack):
            nearline = await stack.enter_async_context(
                running_nearline(settings, channel_settings, on_failure=stop.set)
            )
            _log.info("near-line process runs", pid=os.getpid(), metrics_port=nearline.telemetry.metrics_port)
            await stop.wait()
            _log.info("near-line process drains")
    _log.info("near-line process ends")


async def _take_turn(settings: ServerSettings, stop: asyncio.Event, stack: contextlib.AsyncExitStack) -> bool:
    """Wait until no other process does the work; False once told to stop."""
    waiting = False
    while not stop.is_set():
        attempt = contextlib.ExitStack()
        if attempt.enter_context(exclusive(settings)):
            stack.callback(attempt.close)
            return True
        attempt.close()
        if not waiting:
            _log.warning("waiting: another process does the near-line work", lock=str(settings.nearline_lock_path))
            waiting = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOCK_POLL_SECONDS)
    return False


def _jobs(
    stack: contextlib.AsyncExitStack,
    feedback: FeedbackStore,
    settings: ServerSettings,
    channel_settings: ChannelSettings,
) -> dict[Kind, Callable[[Snapshot], Job[Any] | None]]:
    """Tell how a snapshot's jobs are opened; the stack closes their clients of Triton. Nothing is connected yet."""
    url = settings.nearline_triton_url or channel_settings.triton_url
    timeout = settings.nearline_timeout_seconds
    gpt, text_encoder = InterestGpt(url), TritonTextEncoder(url, timeout=timeout)
    llms = CoevolutionLlms(url)
    for client in (gpt, text_encoder, llms):
        stack.push_async_callback(client.close)

    def interests(snapshot: Snapshot) -> InterestJob | None:
        if not snapshot.interest_gpt:
            return None
        return InterestJob(snapshot, feedback.user, gpt, text_encoder.encode, timeout=timeout)

    def lists(snapshot: Snapshot) -> ListJob | None:
        spec = snapshot.coevolution
        return ListJob(snapshot, spec, llms, timeout=timeout) if spec else None

    return {Kind.INTERESTS: interests, Kind.LISTS: lists}


def _ended(on_failure: Callable[[], None], task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("near-line task failed unexpectedly", task=task.get_name(), exc_info=error)
        on_failure()


async def _run_housekeeping(nearline: Nearline, channel_settings: ChannelSettings) -> None:
    while True:
        with logged_failures("all"):
            cleared = await asyncio.to_thread(clean_up, nearline, channel_settings)
            _log.info("housekeeping done", **asdict(cleared))
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


def clean_up(nearline: Nearline, channel_settings: ChannelSettings, now: float | None = None) -> Cleared:
    """Remove erased users; then records past their age or of group models no snapshot has, and what failed for long.

    now: Unix seconds; by default what the host's clock and its disk agree on, and nothing expires while they do not.
    A failure of either part is logged, and the other is done all the same.
    """
    erased, cleared = 0, Cleared()
    with logged_failures("erasures"):
        erased = forget(nearline.store, nearline.erasures.keys())
    with logged_failures("expiry"):
        manifests = [listed.manifest for listed in nearline.publications.listed()]
        if now is None:
            built = [manifest.created_at.ToMilliseconds() / 1e3 for manifest in manifests if manifest is not None]
            now = nearline.clock.agreed(built)
        if now is None:
            return replace(cleared, erased=erased)
        moment = 0.0
        with contextlib.suppress(SnapshotUnavailable), nearline.holder.acquire() as lease:
            moment = generation_moment(channel_settings, lease.snapshot, now)
        # A snapshot that cannot be read now may be read later; nothing is known of its groups.
        known = [manifest.groups.group_model_id for manifest in manifests if manifest is not None]
        cleared = clear(
            nearline.store,
            now=now,
            moment=moment,
            hard_age=channel_settings.interest_hard_age_days * _DAY,
            group_models=frozenset(known) if known and len(known) == len(manifests) else None,
        )
    return replace(cleared, erased=erased)
