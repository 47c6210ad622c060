"""Where steps run: one after another in this process, or side by side in worker processes that end with the build.

Processes rather than threads: a step seeds the process's generators and sets its number of threads.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from rich.progress import Progress, TaskID

from serendipity.offline.errors import BuilderError

MAX_WORKERS = 3
"""More end no sooner: three keep up with the longest chain of steps, from interests through towers to the canary."""

_SECONDS_BETWEEN_BARS = 0.1

Job = Callable[[Path, Path | None, Progress], Mapping[str, Any]]
"""A step's work: where to make it, what its last run made, where to tell of its progress; returns its key numbers."""


class WorkerError(BuilderError):
    """A worker ended in the middle of a step: names the step, and how it ended."""


class Bar(NamedTuple):
    """How far a part of a step is. total: None when nobody knows."""

    description: str
    completed: float
    total: float | None


class Made(NamedTuple):
    """What a job returned, and the seconds it took."""

    numbers: Mapping[str, Any]
    seconds: float


class Workers(Protocol):
    """Runs jobs by name."""

    @property
    def idle(self) -> bool:
        """Whether a job may be started."""

    def start(self, name: str, directory: Path, previous: Path | None) -> None:
        """Start a job in an idle worker."""

    def next(self) -> tuple[str, Made]:
        """Wait for a job that was started. Raises what it raised, and WorkerError when its process ended."""


class InProcess:
    """Runs one job at a time, in this process and when it is waited for. tell: shows a job's bar."""

    def __init__(self, jobs: Mapping[str, Job], tell: Callable[[str, Bar], None]) -> None:
        self._jobs = jobs
        self._tell = tell
        self._started: tuple[str, Path, Path | None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no job waits."""
        return self._started is None

    def start(self, name: str, directory: Path, previous: Path | None) -> None:
        """Keep the job for `next`."""
        self._started = name, directory, previous

    def next(self) -> tuple[str, Made]:
        """Run the job; raises what it raises."""
        assert self._started is not None
        name, directory, previous = self._started
        self._started = None
        return name, _make(self._jobs[name], directory, previous, partial(self._tell, name))


class WorkerProcesses:
    """Runs jobs in `number` spawned processes, which are started with the first job and run any number of them.

    jobs: picklable; tell: shows a job's bar; lock: whatever is to stay open until the last worker has ended. A worker
    computes on one thread. Use as a context: leaving it kills the workers.
    """

    def __init__(
        self, number: int, jobs: Mapping[str, Job], tell: Callable[[str, Bar], None], lock: Connection
    ) -> None:
        self._number = number
        self._jobs = jobs
        self._tell = tell
        self._lock = lock
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._busy: dict[Connection, str] = {}

    def __enter__(self) -> Self:
        """Start nothing yet: a build that is up to date needs no workers."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Kill the workers, which what a killed step left is made for."""
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()

    @property
    def idle(self) -> bool:
        """Whether a worker has no job."""
        return len(self._busy) < self._number

    def start(self, name: str, directory: Path, previous: Path | None) -> None:
        """Start a job in an idle worker."""
        while len(self._processes) < self._number:
            self._spawn()
        connection = next(connection for connection in self._processes if connection not in self._busy)
        self._busy[connection] = name
        with suppress(BrokenPipeError):  # `next` tells of a worker that has ended.
            connection.send((name, directory, previous))

    def next(self) -> tuple[str, Made]:
        """Wait for a job that was started. Raises what it raised, and WorkerError when its process ended."""
        while True:
            for connection in wait(list(self._busy)):
                assert isinstance(connection, Connection)
                name = self._busy[connection]
                match self._receive(connection):
                    case Bar() as bar:
                        self._tell(name, bar)
                    case Made() as made:
                        del self._busy[connection]
                        return name, made
                    case error:
                        raise error

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._jobs, self._lock), name="serendip build")
        # Ctrl-C reaches every process of a terminal; the build, which alone is to hear it, kills its workers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._processes[connection] = process

    def _receive(self, connection: Connection) -> Bar | Made | BaseException:
        try:
            received: Bar | Made | BaseException = connection.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[connection]
            process.join()
            return WorkerError(
                f"{self._busy[connection]}: its process ended with exit code {process.exitcode}, expected the step's "
                f"numbers; -9 is a kill, as for want of memory"
            )
        return received


class _ToldProgress(Progress):
    """A builder's bars, shown elsewhere: the one that moved is told at most every tenth of a second."""

    def __init__(self, tell: Callable[[Bar], None]) -> None:
        super().__init__(disable=True)
        self._tell = tell
        self._next = 0.0

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._tell_of(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._tell_of(task_id)

    def _tell_of(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_BARS
            task = self._tasks[task_id]
            self._tell(Bar(task.description, task.completed, task.total))


def _make(job: Job, directory: Path, previous: Path | None, tell: Callable[[Bar], None]) -> Made:
    start = time.monotonic()
    numbers = dict(job(directory, previous, _ToldProgress(tell)))
    return Made(numbers, time.monotonic() - start)


def _work(connection: Connection, jobs: Mapping[str, Job], lock: Connection) -> None:  # noqa: ARG001
    """Run jobs until the build ends. The target of a spawned process; `lock` is held open by being there."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Imported here: PyTorch takes seconds, and whoever only runs steps in this process may do without.
    from serendipity.offline.towers.threads import limited_threads

    with limited_threads(1):
        while True:
            name, directory, previous = connection.recv()
            try:
                connection.send(_make(jobs[name], directory, previous, connection.send))
            except Exception as error:
                connection.send(_picklable(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _picklable(error: Exception) -> Exception:
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")
    return error
