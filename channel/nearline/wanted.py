"""What is wanted, in memory until a thread has committed it for all callers together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from serendipity.channel.nearline.subject import Subject
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class WantedCounts:
    """What became of what was wanted, in users or lists; those wanted again before their commit count once.

    accepted: now queued, on disk; merged: were queued already; counted: asked for too seldom so far to be queued;
    refused: the queue is full of more urgent ones, or the subject cannot be stored; displaced: queued ones that gave
    way to more urgent ones; quiet: nothing was to be had for them a short while ago; overflowed: too many waited in
    memory; lost: the disk failed.
    """

    accepted: int = 0
    merged: int = 0
    counted: int = 0
    refused: int = 0
    displaced: int = 0
    quiet: int = 0
    overflowed: int = 0
    lost: int = 0

    def __add__(self, other: WantedCounts) -> WantedCounts:
        return WantedCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Want:
    """What is wanted, why (RefreshCause), how urgently, 0 to 1, and by how many requests."""

    subject: Subject
    cause: records_pb2.RefreshCause
    priority: float
    requests: int = 1

    def __add__(self, other: Want) -> Want:
        """Put two wants of one subject together: the more urgent of the two, for both one's requests."""
        kept = other if other.priority > self.priority else self
        return replace(kept, requests=self.requests + other.requests)


class Wanted:
    """Gathers wants by key and hands them to `commit`, which must not raise, in a thread of its own.

    max_waiting: keys that may wait in memory; interval: seconds between commits, so that a stream of wants costs a
    few fsyncs a second and not one each.
    """

    def __init__(
        self, commit: Callable[[Mapping[bytes, Want]], WantedCounts], *, max_waiting: int, interval: float
    ) -> None:
        self._commit = commit
        self._max_waiting = max_waiting
        self._interval = interval
        self._changed = threading.Condition()
        self._waiting: dict[bytes, Want] = {}
        self._counts = WantedCounts()
        self._added = 0
        self._settled = 0
        self._flushing = 0
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="nearline-wanted", daemon=True)
        self._writer.start()

    def add(self, key: bytes, want: Want) -> None:
        """Take a want over; several for one key become one."""
        with self._changed:
            before = self._waiting.get(key)
            if self._closed:
                self._counts += WantedCounts(lost=1)
            elif before is not None:
                self._waiting[key] = before + want
            elif len(self._waiting) >= self._max_waiting:
                self._counts += WantedCounts(overflowed=1)
            else:
                self._waiting[key] = want
                self._added += 1
                if len(self._waiting) == 1:
                    self._changed.notify_all()

    def refuse(self) -> None:
        """Count a want that cannot be stored."""
        with self._changed:
            self._counts += WantedCounts(refused=1)

    def discard(self, key: bytes) -> None:
        """Drop a key that waits."""
        with self._changed:
            if self._waiting.pop(key, None) is not None:
                self._settled += 1

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was added before is committed, lost or dropped; False after `timeout` seconds."""
        with self._changed:
            goal = self._added
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._settled >= goal, timeout)
            finally:
                self._flushing -= 1

    def counts(self) -> WantedCounts:
        """What became of the wants of this process so far."""
        with self._changed:
            return self._counts

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
            counts = self._commit(wants) if wants else WantedCounts()
            with self._changed:
                self._counts += counts
                self._settled += len(wants)
                self._changed.notify_all()
                if self._closed and not self._waiting:
                    return
