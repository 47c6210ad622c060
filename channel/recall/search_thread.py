"""The one thread that searches. What is due first comes first, and gets its turn at the next user."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Future
from queue import PriorityQueue
from threading import Thread

_Job = tuple[float, int, Iterator[None], "Future[None]"]


class SearchThread:
    """Runs jobs step by step, a step of the most urgent job at a time. One: BLAS has one thread in a worker."""

    def __init__(self) -> None:
        self._jobs: PriorityQueue[_Job] = PriorityQueue()
        self._numbers = itertools.count()
        self._closed = False
        # A search that hangs must not keep the process from ending.
        self._thread = Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    def submit(self, steps: Iterator[None], due: float) -> Future[None]:
        """Let a job be run until its steps end. due: moment on any one clock. Raises RuntimeError once closed.

        A job that has begun cannot be cancelled: it has to look at the time by itself.
        """
        if self._closed:
            raise RuntimeError("the search thread is closed")
        future: Future[None] = Future()
        self._jobs.put((due, next(self._numbers), steps, future))
        return future

    def close(self, *, wait: bool = False) -> None:
        """End after the step under way, and cancel what has not begun."""
        self._closed = True
        self._jobs.put((-math.inf, next(self._numbers), iter(()), Future()))
        if wait:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            due, number, steps, future = self._jobs.get()
            if future.running() or future.set_running_or_notify_cancel():
                try:
                    next(steps)
                except StopIteration:
                    future.set_result(None)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    self._jobs.put((due, number, steps, future))
            # What a job holds must not be held until the next one comes.
            del steps, future
        while not self._jobs.empty():
            future = self._jobs.get()[-1]
            if not future.cancel():
                future.set_exception(RuntimeError("the search thread is closed"))
