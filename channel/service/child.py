"""A process of the service that is kept alive: started again when it dies, and killed and started again when it hangs.

It is spawned, never forked: gRPC and LMDB must not cross a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import structlog

_LOOK_SECONDS = 0.2
_START_SECONDS = 300.0
"""Until the first beat: imports may take minutes on a machine that has other things to do."""
_AGAIN_SECONDS = 0.5
"""After a process could not be started, for want of memory or files: to try costs nothing."""
_FIRST_BACK_OFF = 0.2
_LONGEST_BACK_OFF = 30.0
_STABLE_SECONDS = 60.0
_KILL_MARGIN_SECONDS = 5.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Child:
    """A process kept alive.

    target: called in it with `args` and the connection that it beats on, see `processes.run_until_stopped`;
    hung_seconds: without a beat after which it is taken to hang; drain_seconds: that it has to end when it is told to;
    told: "up" when it beats, and "died", "hung" or "not_started" when it is to be started again.
    """

    name: str
    target: Callable[..., None]
    args: tuple[object, ...]
    hung_seconds: float
    drain_seconds: float
    told: Callable[[str], None] = lambda _: None

    async def keep_alive(self, stop: asyncio.Event) -> int:
        """Run it until told to stop, and return its exit status. However this ends, the process has ended, too."""
        loop, back_off = asyncio.get_running_loop(), _FIRST_BACK_OFF
        while not stop.is_set():
            begun = loop.time()
            try:
                process, beats = self._start()
            except OSError as error:
                self.told("not_started")
                _log.error("process not started", process=self.name, error=str(error), again_in=_AGAIN_SECONDS)
                await _pause(stop, _AGAIN_SECONDS)
                continue
            try:
                cause = await self._watch(process, beats, stop)
            finally:
                status = await self._stop(process)
                process.close()
                beats.close()
            if stop.is_set():
                return status
            self.told(cause)
            if loop.time() - begun >= _STABLE_SECONDS:
                back_off = _FIRST_BACK_OFF
            _log.error("process died", process=self.name, exit_status=status, restart_in=back_off)
            await _pause(stop, back_off)
            back_off = min(2 * back_off, _LONGEST_BACK_OFF)
        return 0

    def _start(self) -> tuple[SpawnProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        beats, heartbeat = context.Pipe(duplex=False)
        with heartbeat:
            try:
                os.set_blocking(beats.fileno(), False)
                # A daemon, so that no way of ending leaves this process waiting for it.
                process = context.Process(target=self.target, args=(*self.args, heartbeat), name=self.name, daemon=True)
                process.start()
            except BaseException:
                beats.close()
                raise
        return process, beats

    async def _watch(self, process: SpawnProcess, beats: Connection, stop: asyncio.Event) -> str:
        """Return when it has ended, and whether it died or hung, or when told to stop."""
        # In looks, not by the clock: while this process was held up, too, it could not hear.
        silent, patience, cause = 0.0, _START_SECONDS, "died"
        while process.exitcode is None and not stop.is_set():
            await _pause(stop, _LOOK_SECONDS)
            if _hears(beats):
                self.told("up")
                silent, patience = 0.0, self.hung_seconds
                continue
            silent += _LOOK_SECONDS
            if silent >= patience and process.exitcode is None:
                _log.error("process hangs: killed", process=self.name, pid=process.pid, silent_seconds=round(silent, 1))
                process.kill()
                # It takes a moment to end, of which nothing more is to be said.
                patience, cause = float("inf"), "hung"
        return cause

    async def _stop(self, process: SpawnProcess) -> int:
        """Ask it to drain, and kill it only when it does not end in time. Returns its exit status."""
        told = process.exitcode is None
        if told:
            process.terminate()
            await _ended(process, self.drain_seconds + _KILL_MARGIN_SECONDS)
        if process.exitcode is None:
            _log.error("process killed: it did not drain in time", process=self.name)
            process.kill()
            await _ended(process, _KILL_MARGIN_SECONDS)
        status = process.exitcode or 0
        # Told before it had its handlers, a child had not begun to serve: nothing was cut short.
        return 0 if told and status == -signal.SIGTERM else status


def _hears(beats: Connection) -> bool:
    try:
        return bool(os.read(beats.fileno(), 65_536))
    except BlockingIOError:
        return False


async def _ended(process: SpawnProcess, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while process.exitcode is None:
                await asyncio.sleep(_LOOK_SECONDS / 4)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
