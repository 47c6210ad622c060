"""What several threads hand over, written by one thread for all of them together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BatchWriter(Generic[Item]):
    """Gathers items and hands them to `write`, which must not raise, in a thread of its own.

    name: of the thread; capacity: items that may wait; interval: seconds for which others are gathered once one waits,
    so that a stream of items costs a few fsyncs, or changes of threads, a second and not one each.
    """

    def __init__(self, name: str, write: Callable[[list[Item]], None], *, capacity: int, interval: float = 0.0) -> None:
        self._write = write
        self._capacity = capacity
        self._interval = interval
        self._changed = threading.Condition()
        self._waiting: list[Item] = []
        self._added = 0
        self._written = 0
        self._flushing = 0
        self.closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Take an item over; False if too many wait, or after close."""
        with self._changed:
            if self.closed or len(self._waiting) >= self._capacity:
                return False
            self._waiting.append(item)
            self._added += 1
            if len(self._waiting) == 1:
                self._changed.notify_all()
            return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was taken over before is written; False after `timeout` seconds."""
        with self._changed:
            goal = self._added
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._written >= goal, timeout)
            finally:
                self._flushing -= 1

    def close(self) -> None:
        """Write what waits, then end the thread. May be called twice."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.closed)
                # Whoever flushes or closes does not wait for others.
                self._changed.wait_for(lambda: self._flushing or self.closed, self._interval)
                items, self._waiting = self._waiting, []
            if not items:
                return
            self._write(items)
            with self._changed:
                self._written += len(items)
                self._changed.notify_all()
