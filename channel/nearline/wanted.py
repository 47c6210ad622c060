"""What is wanted, in memory until a thread has committed it for all callers together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from serendipity.v1 import records_pb2

WANTED_ENDS = ("accepted", "merged", "counted", "refused", "displaced", "quiet", "overflowed", "lost")
"""What becomes of what is wanted, in users or lists; those wanted again before their commit count once.

accepted: now queued, on disk; merged: were queued already; counted: asked for too seldom so far to be queued; refused:
the queue is full of more urgent ones, or the subject cannot be stored; displaced: queued ones that gave way to more
urgent ones; quiet: nothing was to be had for them a short while ago; overflowed: too many waited in memory; lost: the
disk failed."""

Wants = Mapping[bytes, records_pb2.NearlineEntry]
"""By key: the subject, why it is wanted, how urgently (0 to 1), and by how many requests."""


class Wanted:
    """Gathers wants by key and hands them to `commit`, which must not raise, in a thread of its own.

    max_waiting: keys that may wait in memory; interval: seconds between commits, so that a stream of wants costs a
    few fsyncs a second and not one each.
    """

    def __init__(self, commit: Callable[[Wants], Counter[str]], *, max_waiting: int, interval: float) -> None:
        self._commit = commit
        self._max_waiting = max_waiting
        self._interval = interval
        self._changed = threading.Condition()
        self._waiting: dict[bytes, records_pb2.NearlineEntry] = {}
        self._counts = Counter[str]()
        self._added = 0
        self._settled = 0
        self._flushing = 0
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="nearline-wanted", daemon=True)
        self._writer.start()

    def add(self, key: bytes, want: records_pb2.NearlineEntry) -> None:
        """Take a want over; of several for one key the most urgent stays, for all their requests."""
        with self._changed:
            before = self._waiting.get(key)
            if self._closed:
                self._counts["lost"] += 1
            elif before is not None:
                kept, other = (want, before) if want.priority > before.priority else (before, want)
                kept.requests += other.requests
                self._waiting[key] = kept
            elif len(self._waiting) >= self._max_waiting:
                self._counts["overflowed"] += 1
            else:
                self._waiting[key] = want
                self._added += 1
                if len(self._waiting) == 1:
                    self._changed.notify_all()

    def refuse(self) -> None:
        """Count a want that cannot be stored."""
        with self._changed:
            self._counts["refused"] += 1

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was added before is committed or lost; False after `timeout` seconds."""
        with self._changed:
            goal = self._added
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._settled >= goal, timeout)
            finally:
                self._flushing -= 1

    def counts(self) -> Counter[str]:
        """What became of the wants of this process so far, by WANTED_ENDS."""
        with self._changed:
            return self._counts.copy()

    def close(self) -> None:
        """Commit what waits, then end the thread. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._writer.join()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                # Others gather meanwhile; whoever flushes or closes does not wait for them.
                self._changed.wait_for(lambda: self._flushing or self._closed, self._interval)
                wants, self._waiting = self._waiting, {}
            counts = self._commit(wants) if wants else Counter[str]()
            with self._changed:
                self._counts.update(counts)
                self._settled += len(wants)
                self._changed.notify_all()
                if self._closed and not self._waiting:
                    return
