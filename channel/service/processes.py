"""What the processes of a host share: being told to stop, files that only one of them may hold, and housekeeping."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import structlog

from serendipity.channel.errors import ChannelError, StateUnavailable
from serendipity.channel.service.logs import configure_logs
from serendipity.channel.service.settings import ServerSettings

_BEAT_SECONDS = 0.25

_log = structlog.stdlib.get_logger(__name__)


@contextlib.contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM, SIGINT and, in a spawned process, the end of the parent set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, stop.set)
    try:
        yield stop
    finally:
        if parent is not None:
            loop.remove_reader(parent.sentinel)


def run_until_stopped(
    name: int | str,
    settings: ServerSettings,
    work: Callable[[asyncio.Event], Awaitable[None]],
    heartbeat: Connection | None = None,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Be process `name`: run its work until it is told to stop. What ends it otherwise is logged, in one line.

    heartbeat: told several times a second that the event loop turns. Raises SystemExit, status 1, after a failure.
    """
    configure_logs(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(worker=name)

    async def run() -> None:
        if heartbeat is not None:
            os.set_blocking(heartbeat.fileno(), False)
            _beat(heartbeat)
        with told_to_stop() as stop:
            await work(stop)

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run())
    except (ChannelError, OSError) as error:
        _log.error("process cannot go on", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
    except Exception:
        _log.exception("process failed")
        sys.exit(1)


def _beat(heartbeat: Connection) -> None:
    # Full while the supervisor does not listen, which must not hold up its workers as well.
    with contextlib.suppress(OSError):
        os.write(heartbeat.fileno(), b".")
    asyncio.get_running_loop().call_later(_BEAT_SECONDS, _beat, heartbeat)


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a file, made if missing; False if another process holds it. Raises StateUnavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise StateUnavailable(f"{path}: cannot be written ({error})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def logged_failures(part: str) -> Iterator[None]:
    """Log an error instead of raising it: of housekeeping, or of a file that nothing else needs."""
    try:
        yield
    except (ChannelError, OSError) as error:
        _log.warning("housekeeping failed", part=part, error=str(error))
    except Exception:
        _log.exception("housekeeping failed", part=part)
