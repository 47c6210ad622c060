"""The snapshot being served, and its replacement under load.

A request holds a lease on the snapshot it started with; a replaced snapshot is closed when its last lease ends.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.state.state import AvailabilityOverlay


class _Held:
    """A snapshot, how many use it, and what is derived from it and from the present availability."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.leases = 0
        self.retired = False
        # One tuple, replaced whole: readers in several threads see a generation with its own mask.
        self._unavailable = (0, snapshot.unavailable)

    def unavailable_under(self, overlay: AvailabilityOverlay) -> NDArray[np.bool_]:
        """Rows not to be recalled, [n] bool; derived anew when the overlay is later than the last one."""
        generation, unavailable = self._unavailable
        if generation < overlay.generation:
            unavailable = self.snapshot.unavailable_under(overlay)
            self._unavailable = (overlay.generation, unavailable)
        return unavailable


class Lease:
    """The right to use one snapshot until it is released; further leases on the same one can be split off."""

    def __init__(self, holder: SnapshotHolder, held: _Held) -> None:
        self._holder = holder
        self._held = held
        self._released = False

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot leased."""
        return self._held.snapshot

    def unavailable(self, overlay: AvailabilityOverlay) -> NDArray[np.bool_]:
        """Rows not to be recalled under the overlay, or under a later one the holder was given, [n] bool."""
        return self._held.unavailable_under(overlay)

    def split(self) -> Lease:
        """Lease the same snapshot once more, for work that may outlive this lease."""
        return self._holder._lease(self._held)

    def release(self) -> None:
        """End the lease; the last one on a replaced snapshot closes it. Releasing twice does nothing."""
        if not self._released:
            self._released = True
            self._holder._release(self._held)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class SnapshotHolder:
    """Holds the snapshot being served and replaces it while requests run."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        """Start with a snapshot, or with none until the first swap."""
        self._lock = threading.Lock()
        self._current = None if snapshot is None else _Held(snapshot)
        self._overlay = AvailabilityOverlay()

    @property
    def version(self) -> str:
        """Version being served; empty for none."""
        with self._lock:
            return "" if self._current is None else self._current.snapshot.version

    def acquire(self) -> Lease:
        """Lease the snapshot being served. Raises SnapshotUnavailable when there is none."""
        with self._lock:
            held = self._current
            if held is None:
                raise SnapshotUnavailable("no snapshot is loaded; publish one")
            held.leases += 1
        return Lease(self, held)

    def swap(self, directory: Path, *, verify: bool = True, gpu: bool = False) -> Snapshot:
        """Open another snapshot and serve it from now on; running requests finish on the one they have.

        Raises SnapshotUnavailable when it cannot be served; the present one stays then.
        """
        held = _Held(open_snapshot(directory, verify=verify, gpu=gpu))
        held.unavailable_under(self._overlay)
        self._replace(held)
        return held.snapshot

    def prepare(self, overlay: AvailabilityOverlay) -> None:
        """Derive what requests need of an overlay before any of them sees it: called beside the event loop."""
        self._overlay = overlay
        with contextlib.suppress(SnapshotUnavailable), self.acquire() as lease:
            lease.unavailable(overlay)

    def close(self) -> None:
        """Serve no snapshot any more; the last lease closes the present one."""
        self._replace(None)

    def _replace(self, held: _Held | None) -> None:
        with self._lock:
            old, self._current = self._current, held
            if old is None:
                return
            old.retired = True
            unused = old.leases == 0
        if unused:
            old.snapshot.close()

    def _lease(self, held: _Held) -> Lease:
        with self._lock:
            held.leases += 1
        return Lease(self, held)

    def _release(self, held: _Held) -> None:
        with self._lock:
            held.leases -= 1
            unused = held.retired and held.leases == 0
        if unused:
            held.snapshot.close()
