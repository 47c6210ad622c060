"""A worker's convergence to the wanted snapshot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from serendipity.channel.errors import ChannelError
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Served:
    """What a worker serves. version: empty for none; since: Unix seconds; error: why it is not the wanted one."""

    version: str = ""
    since: float = 0.0
    error: str = ""


class SnapshotWatcher:
    """Opens the wanted snapshot whenever it is another than the one served; a bad one is refused and the old one stays.

    open_snapshot: swaps the holder to a version's directory (run in a thread); on_change: told whenever what is
    served, or the reason for not serving the wanted one, changes; poll, retry: seconds between looks at the link, and
    until a refused snapshot is tried again (it may have been incomplete, or its disk away); clock: Unix seconds;
    monotonic: seconds of a clock that nobody sets back.
    """

    def __init__(
        self,
        publications: Publications,
        holder: SnapshotHolder,
        *,
        on_change: Callable[[Served, Snapshot | None], Awaitable[None]],
        poll: float,
        retry: float = 30.0,
        gpu: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publications = publications
        self._holder = holder
        self._on_change = on_change
        self._poll = poll
        self._retry = retry
        self._gpu = gpu
        self._clock = clock
        self._monotonic = monotonic
        self._refused = ""
        self._refused_at = 0.0
        self.served = Served()

    async def converge(self) -> None:
        """Look once, and swap if the wanted snapshot is another one."""
        wanted = self._publications.wanted()
        if not wanted or wanted == self._holder.version:
            if self.served.error:
                # The operator has rolled back to what is served: nothing is refused any more.
                self._refused = ""
                await self._tell(Served(self.served.version, self.served.since), None)
            return
        if wanted == self._refused and self._monotonic() - self._refused_at < self._retry:
            return
        try:
            directory = self._publications.directory(wanted)
            snapshot = await asyncio.to_thread(self._holder.swap, directory, gpu=self._gpu)
        except ChannelError as error:
            self._refused, self._refused_at = wanted, self._monotonic()
            _log.error("snapshot refused", wanted=wanted, served=self._holder.version, error=str(error))
            await self._tell(Served(self.served.version, self.served.since, str(error)), None)
            return
        self._refused = ""
        _log.info("snapshot served", version=wanted, before=self.served.version)
        await self._tell(Served(wanted, self._clock()), snapshot)

    async def run(self) -> None:
        """Look again and again until cancelled; an unforeseen failure is logged and the next look tries again."""
        while True:
            await asyncio.sleep(self._poll)
            try:
                await self.converge()
            except Exception:
                _log.exception("looking for the wanted snapshot failed")

    async def _tell(self, served: Served, snapshot: Snapshot | None) -> None:
        self.served = served
        await self._on_change(served, snapshot)
