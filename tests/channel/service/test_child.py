"""A process that is kept alive: whatever becomes of it, there is one again, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from serendipity.channel.service.child import Child
from serendipity.channel.service.processes import run_until_stopped
from serendipity.channel.service.settings import ServerSettings


def serve(directory: Path, heartbeat: Connection) -> None:
    """Leave a file named by the process id; block the event loop where a file asks for that."""

    async def work(stop: asyncio.Event) -> None:
        (directory / str(os.getpid())).touch()
        while not stop.is_set():
            if (directory / "block").exists():
                (directory / "block").unlink()
                time.sleep(600)
            await asyncio.sleep(0.02)

    run_until_stopped(0, ServerSettings(snapshots=directory, state=directory), work, heartbeat)


def fail(directory: Path, heartbeat: Connection) -> None:
    async def work(stop: asyncio.Event) -> None:
        (directory / str(os.getpid())).touch()
        raise OSError("no room")

    run_until_stopped(0, ServerSettings(snapshots=directory, state=directory), work, heartbeat)


def processes(directory: Path) -> set[int]:
    return {int(path.name) for path in directory.iterdir() if path.name.isdigit()}


async def another(directory: Path, before: set[int]) -> int:
    """Wait for a process that was not there before."""
    async with asyncio.timeout(120):
        while not (new := processes(directory) - before):
            await asyncio.sleep(0.02)
    return new.pop()


@contextlib.asynccontextmanager
async def kept_alive(
    directory: Path, target: Callable[..., None] = serve, told: Callable[[str], None] = lambda _: None
) -> AsyncIterator[tuple[asyncio.Task[int], asyncio.Event]]:
    stop = asyncio.Event()
    child = Child("worker-0", target, (directory,), hung_seconds=1.0, drain_seconds=10.0, told=told)
    task = asyncio.create_task(child.keep_alive(stop))
    try:
        yield task, stop
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_process_that_hangs_is_replaced_whether_it_was_stopped_or_its_loop_is_blocked(tmp_path: Path) -> None:
    told: list[str] = []
    async with kept_alive(tmp_path, told=told.append) as (task, stop):
        first = await another(tmp_path, set())
        os.kill(first, signal.SIGSTOP)
        second = await another(tmp_path, {first})
        (tmp_path / "block").touch()
        third = await another(tmp_path, {first, second})
        for gone in (first, second):
            with pytest.raises(ProcessLookupError):
                os.kill(gone, 0)
        os.kill(third, 0)
        stop.set()
        assert await asyncio.wait_for(task, 60) == 0
    assert [state for state in told if state != "up"] == ["hung", "hung"]
    assert told[0] == told[-1] == "up"


async def test_a_process_that_fails_says_why_in_one_line_and_is_started_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    async with kept_alive(tmp_path, fail, told.append):
        first = await another(tmp_path, set())
        await another(tmp_path, {first})
    assert "died" in told
    said = capfd.readouterr().err.splitlines()
    assert sum('"error": "OSError: no room", "event": "process cannot go on"' in line for line in said) in (1, 2)
    assert not [line for line in said if line.startswith("Traceback")]


async def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # As many as are open: a pipe cannot be made.
    resource.setrlimit(resource.RLIMIT_NOFILE, (sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1, hard))
    try:
        told: list[str] = []
        async with kept_alive(tmp_path, told=told.append) as (task, _), asyncio.timeout(120):
            said = ""
            while "process not started" not in said:
                await asyncio.sleep(0.02)
                said += capfd.readouterr().out  # Unconfigured, structlog prints.
            assert not task.done()
            assert set(told) == {"not_started"}
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await another(tmp_path, set())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_an_unforeseen_failure_of_supervision_ends_it(tmp_path: Path) -> None:
    # What cannot be sent to a process.
    async with kept_alive(tmp_path, lambda _: None) as (task, _):
        with pytest.raises(AttributeError, match="pickle"):
            await asyncio.wait_for(task, 120)
