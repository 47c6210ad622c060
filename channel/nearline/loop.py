"""From the queue to the refresher, batch by batch: what waits for what, and what is at fault when nothing answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from serendipity.channel.errors import ChannelError, GenerationError
from serendipity.channel.nearline.context import ReadFeedback
from serendipity.channel.nearline.refresh_model import RefreshModel
from serendipity.channel.nearline.refresher import Refreshed, Refresher
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot import Lease, Snapshot, SnapshotHolder
from serendipity.v1 import records_pb2

_log = structlog.stdlib.get_logger(__name__)


class LoopObserver(Protocol):
    """Is told how the loop fares."""

    def refreshed(self, refreshed: Refreshed, model_name: str) -> None:
        """Take note of a batch."""

    def failed(self, error: Exception) -> None:
        """Take note that no batch could be refreshed."""


class RefreshModels:
    """The refresh model of the snapshot being held; one that is replaced is closed with the next look."""

    def __init__(self, holder: SnapshotHolder, feedback: ReadFeedback) -> None:
        self._holder = holder
        self._feedback = feedback
        self._lease: Lease | None = None
        self._model: RefreshModel | None = None

    def current(self) -> RefreshModel | None:
        """Open the held snapshot's, unless it is open; None if the snapshot names no InterestGPT.

        Takes seconds for a vocabulary of many nodes. Raises SnapshotUnavailable.
        """
        lease = self._holder.acquire()
        if self._lease is not None and lease.snapshot is self._lease.snapshot:
            lease.release()
            return self._model
        try:
            model = RefreshModel.open(lease.snapshot, self._feedback)
        except BaseException:
            lease.release()
            raise
        self.close()
        self._lease, self._model = lease, model
        return model

    def close(self) -> None:
        """Close the model and let its snapshot go."""
        if self._model is not None:
            self._model.close()
        if self._lease is not None:
            self._lease.release()
        self._lease = self._model = None


class RefreshLoop:
    """Takes the most urgent entries and has them refreshed, for as long as it is let.

    batch: entries at once; settings: what "now" is; poll: seconds between looks at an empty queue, and until the first
    new try when Triton does not answer; longest_pause: until the later ones; clock: Unix seconds.

    When nothing answers it may be Triton, or a prompt that brings it down. So the batch is halved with every failure;
    where an entry fails alone, the next one in the queue is tried alone, and an entry that fails before and after
    another was answered is at fault. Nothing else of the kind counts against an entry.
    """

    def __init__(
        self,
        store: NearlineStore,
        refresher: Refresher,
        models: RefreshModels,
        settings: ChannelSettings,
        observer: LoopObserver,
        *,
        batch: int,
        poll: float,
        longest_pause: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._refresher = refresher
        self._models = models
        self._settings = settings
        self._observer = observer
        self._batch = batch
        self._size = batch
        self._poll = poll
        self._longest_pause = longest_pause
        self._clock = clock
        self.in_hand = 0
        """Entries being refreshed now."""

    async def run(self, told: asyncio.Event) -> None:
        """Refresh until told to stop. What cannot be refreshed is reported and tried again after a pause."""
        failures = 0
        while not told.is_set():
            pause = 0.0
            try:
                if await self.step() is None:
                    pause = self._poll
                failures = 0
            except ChannelError as error:
                pause = min(self._longest_pause, self._poll * 2.0 ** min(failures, 30))
                failures += 1
                self._observer.failed(error)
                _log.warning("interests not refreshed", error=str(error), failures=failures, again_in=pause)
            except Exception as error:
                pause = self._longest_pause
                failures += 1
                self._observer.failed(error)
                _log.exception("interests not refreshed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), pause)

    async def step(self) -> Refreshed | None:
        """Refresh one batch; None if there is nothing to do, or no model to do it with.

        Raises ChannelError when it cannot be done now; the queue is as it was then.
        """
        model = await asyncio.to_thread(self._models.current)
        if model is None:
            return None
        entries = await asyncio.to_thread(self._store.take, max(2, self._size), self._clock())
        if not entries:
            return None
        now = generation_moment(self._settings, model.snapshot, self._clock())
        some = entries[: self._size]
        self.in_hand = len(some)
        try:
            refreshed = await self._refresher.refresh(some, model, now)
        except GenerationError:
            self._size = max(1, len(some) // 2)
            if len(some) > 1:
                raise
            witness = await self._refresher.refresh(entries[1:2], model, now)
            if not witness.completion_tokens:
                # Nothing was asked, so nothing is known of who is at fault.
                raise
            self._observer.refreshed(witness, model.spec.model_name)
            again = await self._once_more(some[0], model, now)
            if again is None:
                return witness
            refreshed = again
        else:
            self._size = min(self._batch, 2 * self._size)
        finally:
            self.in_hand = 0
        self._observer.refreshed(refreshed, model.spec.model_name)
        return refreshed

    async def _once_more(self, suspect: records_pb2.NearlineEntry, model: RefreshModel, now: int) -> Refreshed | None:
        """Try the one that failed alone while another was answered; failing again, it is put off, and None returned.

        The second try is for Triton's sake, which may have come back between the first and the other's.
        """
        try:
            return await self._refresher.refresh([suspect], model, now)
        except GenerationError as error:
            _log.warning("a user brings down what it is asked of", user=suspect.user_id, error=str(error))
            await asyncio.to_thread(self._store.fail, suspect, str(error), self._clock())
            return None


def generation_moment(settings: ChannelSettings, snapshot: Snapshot, now: float) -> int:
    """Moment that interests are generated as of, Unix seconds: by the clock that requests are answered by.

    now: of the wall clock.
    """
    return int(now) if settings.clock == "wall" else snapshot.versions.events_until + 1
