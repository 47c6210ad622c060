"""From a queue to its work, batch by batch: what waits for what, and what is at fault when nothing answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol

import structlog
from google.protobuf.message import DecodeError

from serendipity.channel.errors import ChannelError, GenerationError, RecordCorrupt
from serendipity.channel.nearline.job import Asked, Job, Question
from serendipity.channel.nearline.outcome import Failed, Outcome, Unneeded
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind, entry_key, subject_name
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import Lease, SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import records_pb2

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class BatchDone:
    """What became of a batch.

    ends: entries by how they ended, as of `DurableQueue.settle`, and `forgotten`: those of users on the erasure list,
    removed; counts: what else the job counted; asked: entries that a model was asked about, and answered; seconds: of
    all of it.
    """

    ends: Counter[str]
    counts: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    seconds: float = 0.0


class LoopObserver(Protocol):
    """Is notified of what the loops do. Must not raise: that would end the loop."""

    def done(self, kind: Kind, done: BatchDone) -> None:
        """Take note of a batch."""

    def failed(self, kind: Kind, error: Exception) -> None:
        """Take note that a batch could not be worked on."""


class NearlineLoop(Generic[Question]):
    """Takes the most urgent entries of a queue and has them worked on, until it is stopped.

    open_job: opens a snapshot's job, None if it names no model of the kind, or raises SnapshotUnavailable;
    is_forgotten: tells of whom all is removed, or raises StateUnavailable; settings: what "now" is; batch: entries at
    once; poll: seconds between looks at an empty queue, and until the first new try when Triton does not answer;
    longest_pause: until the later ones; clock: Unix seconds.

    When nothing answers it may be Triton, or a prompt that brings it down. So the batch is halved with every failure;
    where an entry fails alone, the next one in the queue is tried alone, and an entry that fails before and after
    another was answered is at fault. Nothing else of the kind counts against an entry.
    """

    def __init__(
        self,
        store: NearlineStore,
        kind: Kind,
        open_job: Callable[[Snapshot], Job[Question] | None],
        holder: SnapshotHolder,
        is_forgotten: Callable[[str], bool],
        settings: ChannelSettings,
        observer: LoopObserver,
        *,
        batch: int,
        poll: float,
        longest_pause: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._queue = store.queue(kind)
        self._records = store.records[kind][0]
        self._open_job = open_job
        self._holder = holder
        self._is_erased = is_forgotten
        self._settings = settings
        self._observer = observer
        self._batch = batch
        self._size = batch
        self._poll = poll
        self._longest_pause = longest_pause
        self._clock = clock
        self._lease: Lease | None = None
        self._job: Job[Question] | None = None
        self.in_hand = 0
        """Entries being worked on now."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop. What cannot be done is reported and tried again after a pause."""
        failures, kind = 0, self._queue.kind
        while not stop.is_set():
            pause = 0.0
            try:
                if await self.step() is None:
                    pause = self._poll
                failures = 0
            except ChannelError as error:
                pause = min(self._longest_pause, self._poll * 2.0 ** min(failures, 30))
                failures += 1
                self._observer.failed(kind, error)
                _log.warning("batch not done", kind=kind, error=str(error), failures=failures, again_in=pause)
            except Exception as error:
                pause = self._longest_pause
                failures += 1
                self._observer.failed(kind, error)
                _log.exception("batch not done", kind=kind)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def step(self) -> BatchDone | None:
        """Work on one batch; None if there is nothing to do, or no model to do it with.

        Raises ChannelError when it cannot be done now; the queue is as it was then.
        """
        job = await asyncio.to_thread(self._current_job)
        if job is None:
            return None
        entries = await asyncio.to_thread(self._queue.take, max(2, self._size), self._clock())
        if not entries:
            return None
        now = generation_moment(self._settings, job.snapshot, self._clock())
        some = entries[: self._size]
        self.in_hand = len(some)
        try:
            done = await self.work(some, job, now)
        except GenerationError:
            self._size = max(1, len(some) // 2)
            if len(some) > 1:
                raise
            other = await self.work(entries[1:2], job, now)
            if not other.asked:
                # No model was asked, so nothing is known of which is at fault.
                raise
            self._observer.done(self._queue.kind, other)
            again = await self._once_more(some[0], job, now)
            if again is None:
                return other
            done = again
        else:
            self._size = min(self._batch, 2 * self._size)
        finally:
            self.in_hand = 0
        self._observer.done(self._queue.kind, done)
        return done

    async def work(self, entries: Sequence[records_pb2.NearlineEntry], job: Job[Question], now: int) -> BatchDone:
        """Bring entries to their end: records, a failure that is put off, or nothing to do.

        now: moment the records are generated as of, Unix seconds. Raises ModelUnavailable, StateUnavailable and
        StoreUnavailable; then nothing is settled, the entries stay as they were, and it counts against none of them.
        """
        start = time.perf_counter()
        outcomes: list[Outcome] = []
        asked = await asyncio.to_thread(self._read, entries, job, now, outcomes)
        generated = await job.generate(asked, now)
        counts = Counter(generated.counts)
        ends = await asyncio.to_thread(self._settle, [*outcomes, *generated.outcomes], entries, counts)
        return BatchDone(ends, counts, len(asked), time.perf_counter() - start)

    def close(self) -> None:
        """Close the job and let its snapshot go."""
        if self._job is not None:
            self._job.close()
        if self._lease is not None:
            self._lease.release()
        self._lease = self._job = None

    def _current_job(self) -> Job[Question] | None:
        """Open the held snapshot's job, unless it is open; takes seconds for a vocabulary of many nodes."""
        lease = self._holder.acquire()
        if self._lease is not None and lease.snapshot is self._lease.snapshot:
            lease.release()
            return self._job
        try:
            job = self._open_job(lease.snapshot)
        except BaseException:
            lease.release()
            raise
        self.close()
        self._lease, self._job = lease, job
        return job

    def _read(
        self,
        entries: Sequence[records_pb2.NearlineEntry],
        job: Job[Question],
        now: int,
        outcomes: list[Outcome],
    ) -> list[Asked[Question]]:
        """Read what a model is asked; entries that need none get their outcome, those of forgotten users go."""
        asked = []
        for entry in entries:
            if self._is_forgotten(entry):
                continue
            # It may have been asked for once more while it was generated.
            stored = self._stored(entry)
            if stored is not None and job.is_current(stored, now):
                outcomes.append(Unneeded(entry))
                continue
            try:
                question = job.read(entry, now)
            except RecordCorrupt as error:
                question = Failed(entry, str(error))
            if isinstance(question, Failed | Unneeded):
                outcomes.append(question)
            else:
                asked.append(Asked(entry, question))
        return asked

    def _stored(self, entry: records_pb2.NearlineEntry) -> Any:
        """Read what is stored for an entry; None also where it cannot be decoded, for generating it anew mends that."""
        key = entry_key(entry)
        with self._store.env.reading() as txn:
            try:
                return self._records.get(txn, key)
            except DecodeError as error:
                name = subject_name(entry)
                _log.warning("unreadable record counts as absent", subject=name, key=repr(key), error=str(error))
                return None

    def _settle(
        self, outcomes: Sequence[Outcome], entries: Sequence[records_pb2.NearlineEntry], counts: Counter[str]
    ) -> Counter[str]:
        """Store outcomes and forget whom is to be forgotten, those included who asked while the model was thinking."""
        forgotten = {entry.user_id for entry in entries if self._is_forgotten(entry)}
        self._store.forget_all(forgotten)
        kept = [outcome for outcome in outcomes if outcome.entry.user_id not in forgotten]
        ends = self._queue.settle(kept, self._clock(), counts + Counter(forgotten=len(forgotten)))
        return ends + Counter(forgotten=len(forgotten))

    def _is_forgotten(self, entry: records_pb2.NearlineEntry) -> bool:
        return bool(entry.user_id) and self._is_erased(entry.user_id)

    async def _once_more(self, suspect: records_pb2.NearlineEntry, job: Job[Question], now: int) -> BatchDone | None:
        """Try again an entry that failed alone while another was answered; None, and put off, if it fails again.

        Triton may have come back between its first try and that of the other.
        """
        try:
            return await self.work([suspect], job, now)
        except GenerationError as error:
            _log.warning(
                "entry failed twice alone, while another was answered",
                kind=self._queue.kind,
                subject=subject_name(suspect),
                error=str(error),
            )
            await asyncio.to_thread(self._queue.fail, suspect, str(error), self._clock())
            return None


def generation_moment(settings: ChannelSettings, snapshot: Snapshot, now: float) -> int:
    """Moment that records are generated as of, Unix seconds: by the clock that requests are answered by.

    now: of the wall clock.
    """
    return int(now) if settings.clock == "wall" else snapshot.events_until + 1
