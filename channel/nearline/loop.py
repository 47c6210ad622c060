"""From a queue to its work, batch by batch: what waits for what, and what is at fault when nothing answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from serendipity.channel.errors import ChannelError, GenerationError
from serendipity.channel.nearline.durable_queue import DurableQueue
from serendipity.channel.nearline.outcome import BatchDone
from serendipity.channel.nearline.snapshot_models import Model, SnapshotModels
from serendipity.channel.nearline.subject import Kind, subject_name
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import records_pb2

Done = TypeVar("Done", bound=BatchDone)

_log = structlog.stdlib.get_logger(__name__)


class LoopObserver(Protocol):
    """Is notified of what the loops do. Must not raise: that would end the loop."""

    def done(self, kind: Kind, done: BatchDone, model_name: str) -> None:
        """Take note of a batch."""

    def failed(self, kind: Kind, error: Exception) -> None:
        """Take note that a batch could not be worked on."""


class NearlineLoop(Generic[Model, Done]):
    """Takes the most urgent entries of a queue and has them worked on, until it is stopped.

    work: brings entries to their end, as of a moment (Unix seconds), or raises ChannelError and settles nothing;
    batch: entries at once; settings: what "now" is; poll: seconds between looks at an empty queue, and until the first
    new try when Triton does not answer; longest_pause: until the later ones; clock: Unix seconds.

    When nothing answers it may be Triton, or a prompt that brings it down. So the batch is halved with every failure;
    where an entry fails alone, the next one in the queue is tried alone, and an entry that fails before and after
    another was answered is at fault. Nothing else of the kind counts against an entry.
    """

    def __init__(
        self,
        queue: DurableQueue,
        work: Callable[[Sequence[records_pb2.NearlineEntry], Model, int], Awaitable[Done]],
        models: SnapshotModels[Model],
        settings: ChannelSettings,
        observer: LoopObserver,
        *,
        batch: int,
        poll: float,
        longest_pause: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._work = work
        self._models = models
        self._settings = settings
        self._observer = observer
        self._batch = batch
        self._size = batch
        self._poll = poll
        self._longest_pause = longest_pause
        self._clock = clock
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

    async def step(self) -> Done | None:
        """Work on one batch; None if there is nothing to do, or no model to do it with.

        Raises ChannelError when it cannot be done now; the queue is as it was then.
        """
        model = await asyncio.to_thread(self._models.current)
        if model is None:
            return None
        entries = await asyncio.to_thread(self._queue.take, max(2, self._size), self._clock())
        if not entries:
            return None
        now = generation_moment(self._settings, model.snapshot, self._clock())
        some = entries[: self._size]
        self.in_hand = len(some)
        try:
            done = await self._work(some, model, now)
        except GenerationError:
            self._size = max(1, len(some) // 2)
            if len(some) > 1:
                raise
            other = await self._work(entries[1:2], model, now)
            if not other.asked:
                # No model was asked, so nothing is known of which is at fault.
                raise
            self._observer.done(self._queue.kind, other, model.name)
            again = await self._once_more(some[0], model, now)
            if again is None:
                return other
            done = again
        else:
            self._size = min(self._batch, 2 * self._size)
        finally:
            self.in_hand = 0
        self._observer.done(self._queue.kind, done, model.name)
        return done

    async def has_model(self) -> bool:
        """Tell whether the held snapshot names a model of the kind. Raises SnapshotUnavailable."""
        return await asyncio.to_thread(self._models.current) is not None

    async def _once_more(self, suspect: records_pb2.NearlineEntry, model: Model, now: int) -> Done | None:
        """Try again an entry that failed alone while another was answered; None, and put off, if it fails again.

        Triton may have come back between its first try and that of the other.
        """
        try:
            return await self._work([suspect], model, now)
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
