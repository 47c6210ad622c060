"""Worker processes: they run steps of a build at the same time, and end with it.

Processes rather than threads: a step seeds the generators of its process and sets its number of threads.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.progress import Progress, TaskID

from serendipity.offline.errors import BuilderError

MAX_WORKERS = 3
"""More end no sooner: three keep up with the longest chain of steps, from interests through towers to the canary."""

_SECONDS_BETWEEN_BARS = 0.1


@dataclass(frozen=True)
class StepContext:
    """What a running step is given.

    directory: where to write; it holds what a killed run of the very same step left if the step is resumable, and is
    empty otherwise. previous: what the last finished run made, of whatever inputs; None if there is none.
    progress: where a builder tells how far it is; none of its bars is shown by itself.
    """

    directory: Path
    previous: Path | None
    progress: Progress


Job = Callable[[StepContext], Mapping[str, Any]]
"""A step's work; returns its key numbers."""


class WorkerError(BuilderError):
    """A step that a worker ran was not finished: names it, and what happened."""


class Bar(NamedTuple):
    """How far a part of a step is. total: None when nobody knows."""

    description: str
    completed: float
    total: float | None


class Made(NamedTuple):
    """What a job returned, and the seconds it took."""

    numbers: Mapping[str, Any]
    seconds: float


class Workers:
    """Runs jobs at the same time: `number` spawned processes, which start with the first job and are used again.

    number: 1: no processes, a job runs here when it is started. jobs: by name, picklable where they go to processes;
    tell: shows a job's bar; lock: what stays open until the last process has ended. Each computes on one thread. Use as
    a context: leaving it ends the processes, whatever they do.
    """

    def __init__(
        self, number: int, jobs: Mapping[str, Job], tell: Callable[[str, Bar], None], lock: Connection
    ) -> None:
        self._number = number
        self._jobs = jobs
        self._tell = tell
        self._lock = lock
        self._running: dict[Future[Made], str] = {}
        self._processes: _Processes | None = None

    def __enter__(self) -> Self:
        """Start nothing yet: a build that is up to date needs no processes."""
        return self

    def __exit__(self, *raised: object) -> None:
        """End the processes: at once where something was raised, since a step can go on from wherever it is ended."""
        if self._processes:
            if any(raised):
                self._processes.end.close()
            self._processes.executor.shutdown()
            self._processes.end.close()

    @property
    def idle(self) -> bool:
        """Whether a job may be started."""
        return len(self._running) < self._number

    def start(self, name: str, directory: Path, previous: Path | None) -> None:
        """Start a job; raises what it raises if it runs here."""
        if self._number == 1:
            future: Future[Made] = Future()
            future.set_result(_run(self._jobs[name], directory, previous, partial(self._tell, name)))
        else:
            self._processes = self._processes or _spawn(self._number, self._jobs, self._lock)
            future = self._processes.executor.submit(_work, name, directory, previous)
        self._running[future] = name

    def next(self) -> tuple[str, Made]:
        """Wait for a job that was started, and show the bars meanwhile.

        Raises what the job raised, and WorkerError when that cannot be passed on or a process was killed.
        """
        done: set[Future[Made]] = set()
        while not done:
            done, _ = wait(self._running, _SECONDS_BETWEEN_BARS, FIRST_COMPLETED)
            while self._processes and not self._processes.bars.empty():
                self._tell(*self._processes.bars.get())
        future = done.pop()
        try:
            return self._running[future], future.result()
        except BrokenProcessPool as error:
            names = " or ".join(self._running.values())
            raise WorkerError(f"{names}: its process was killed, expected it to end; did memory run out?") from error
        finally:
            del self._running[future]


class _Processes(NamedTuple):
    executor: ProcessPoolExecutor
    bars: SimpleQueue[tuple[str, Bar]]
    end: Connection


def _spawn(number: int, jobs: Mapping[str, Job], lock: Connection) -> _Processes:
    """Start processes that end when `end` is closed, as it is when this process ends, however it does."""
    spawn = multiprocessing.get_context("spawn")
    bars: SimpleQueue[tuple[str, Bar]] = spawn.SimpleQueue()
    ended, end = spawn.Pipe(duplex=False)
    executor = ProcessPoolExecutor(number, spawn, _begin, (jobs, bars, ended, lock))
    for _ in range(number):
        # A process starts with a task: all begin to import what they need, which takes seconds.
        executor.submit(os.getpid)
    return _Processes(executor, bars, end)


class _ToldProgress(Progress):
    """Shows no bars, but tells of the one that moved, at most ten times a second."""

    def __init__(self, tell: Callable[[Bar], None]) -> None:
        super().__init__(disable=True)
        self._tell = tell
        self._next = 0.0

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        self.update(task_id, advance=advance)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_BARS
            task = self._tasks[task_id]
            self._tell(Bar(task.description, task.completed, task.total))


def _run(job: Job, directory: Path, previous: Path | None, tell: Callable[[Bar], None]) -> Made:
    start = time.monotonic()
    numbers = dict(job(StepContext(directory, previous, _ToldProgress(tell))))
    return Made(numbers, time.monotonic() - start)


_jobs: Mapping[str, Job]
_bars: SimpleQueue[tuple[str, Bar]]


def _begin(jobs: Mapping[str, Job], bars: SimpleQueue[tuple[str, Bar]], end: Connection, _lock: Connection) -> None:
    """Make ready a worker: jobs have been imported, the lock is held by being there."""
    # Imported here: it takes seconds, which a build in one process of what needs no PyTorch should not wait for.
    import torch
    from threadpoolctl import threadpool_limits

    global _jobs, _bars
    _jobs, _bars = jobs, bars
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")
    # Ctrl-C reaches every process of a terminal; the build is to hear it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(end, _lock), daemon=True).start()


def _end_with(end: Connection, _lock: Connection) -> None:
    end.poll(None)
    os._exit(1)


def _work(name: str, directory: Path, previous: Path | None) -> Made:
    try:
        return _run(_jobs[name], directory, previous, lambda bar: _bars.put((name, bar)))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise WorkerError(f"{name}: {type(error).__name__}: {error}") from error
        raise
