"""What the processes of a host share: being told to stop, files that only one of them may hold, and housekeeping."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path

import structlog

from serendipity.channel.errors import ChannelError, StateUnavailable

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
    """Log an error of a part of housekeeping instead of raising it: the task must still run in an hour."""
    try:
        yield
    except ChannelError as error:
        _log.warning("housekeeping failed", part=part, error=str(error))
    except Exception:
        _log.exception("housekeeping failed", part=part)
