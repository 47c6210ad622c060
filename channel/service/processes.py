"""What the processes of a host share: being told to stop, and files that only one of them may hold."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path

from serendipity.channel.errors import StateUnavailable


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
