"""A worker's convergence to the wanted snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from serendipity import layout
from serendipity.channel.errors import ChannelError
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.verification import file_times

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Served:
    """What a process serves.

    version: empty for none; since: Unix seconds; error: why it is not the wanted one; seconds: that opening it took.
    """

    version: str = ""
    since: float = 0.0
    error: str = ""
    seconds: float = field(default=0.0, compare=False)


class SnapshotWatcher:
    """Opens the wanted snapshot whenever it is another than the one served; a bad one is refused and the old one stays.

    Where nothing is served yet, or what is served was changed on disk, the latest that can be opened of those wanted
    before stands in.

    on_change: told whenever what is served, or the reason for not serving the wanted one, changes; poll, retry: seconds
    between looks at the link, and until a refused snapshot is tried again (it may have been incomplete, or its disk
    away); clock: Unix seconds; monotonic: seconds of a clock that nobody sets back.
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
        self._refused: str | None = None
        self._refused_at = 0.0
        self._files: dict[str, list[int]] = {}
        self.served = Served()

    async def converge(self) -> None:
        """Look once, and swap if the wanted snapshot is another one."""
        wanted, served = self._publications.wanted(), self._holder.version
        sound = "" if self._is_changed(served) else served
        if wanted == sound and (wanted or not self._publications.earlier()):
            if self.served.error:
                # The operator has rolled back to what is served: nothing is refused any more.
                self._refused = None
                await self._tell(Served(self.served.version, self.served.since), None)
            return
        if wanted == self._refused and self._monotonic() - self._refused_at < self._retry:
            return
        error = await self._serve(wanted, "") if wanted else f"{layout.CURRENT}: no such link"
        if not error:
            self._refused = None
            return
        self._refused, self._refused_at = wanted, self._monotonic()
        _log.error("snapshot refused", wanted=wanted, served=served, error=error)
        await self._tell(Served(self.served.version, self.served.since, error), None)
        for version in () if sound else self._publications.earlier():
            if version != wanted and not await self._serve(version, f"{error}; {version}, wanted before, stands in"):
                _log.error("an earlier snapshot stands in", wanted=wanted, version=version)
                return

    async def _serve(self, version: str, because: str) -> str:
        """Serve a version from now on; returns why that cannot be, empty if it is served. because: see Served.error."""
        before, directory, begin = self.served.version, self._publications.directory(version), self._monotonic()
        try:
            snapshot = await asyncio.to_thread(self._holder.swap, directory, gpu=self._gpu)
            self._files = file_times(directory, {layout.MANIFEST, *layout.read_manifest(directory).checksums})
        except (ChannelError, layout.SnapshotError, OSError) as error:
            return str(error)
        _log.info("snapshot served", version=version, before=before)
        await self._tell(Served(version, self._clock(), because, self._monotonic() - begin), snapshot)
        return ""

    def _is_changed(self, version: str) -> bool:
        """Tell whether files of the snapshot served are others than those opened; deleting them does no harm."""
        with contextlib.suppress(layout.SnapshotError, OSError):
            return file_times(self._publications.directory(version), self._files) != self._files
        return False

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
