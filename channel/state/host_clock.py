"""The host's clock held against what its disk knows: a clock that has leapt deletes nothing.

<state>/clock.json      the latest moment at which housekeeping and the disk agreed, Unix seconds
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from serendipity import layout

LARGEST_LEAP = 3 * 86_400.0
"""Seconds by which the clock may be away from all that the disk knows of, as after a weekend switched off."""

_log = structlog.stdlib.get_logger(__name__)


class HostClock:
    """The clock of one host's state. path: its file; clock: Unix seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._agreed = self._read() or 0.0

    def now(self) -> float:
        """Unix seconds for what is recorded: never before what was agreed on, or it would be deleted as too old."""
        return max(self._clock(), self._agreed)

    def begin(self, recorded: float | None) -> None:
        """Where nothing was agreed on yet, take the latest feedback for it, before more is recorded by this clock.

        recorded: when that was, Unix seconds; None without any. Raises OSError.
        """
        if recorded is not None and self._read() is None:
            layout.write_atomically(self._path, json.dumps(recorded).encode())

    def agreed(self, snapshots: Iterable[float]) -> float | None:
        """Tell the time that things may be deleted by; None, and the log says why, while the clock agrees with nothing.

        snapshots: when those on disk were built, Unix seconds. Raises OSError.
        """
        now, before = self._clock(), self._read()
        known = [*snapshots, *([] if before is None else [before])]
        if before is not None and all(abs(now - moment) > LARGEST_LEAP for moment in known):
            _log.error(
                "clock disagrees with the disk: nothing is deleted until a snapshot that was built by this clock is "
                "published, or the file is removed",
                days_away=round(min((now - moment for moment in known), key=abs) / 86_400, 1),
                file=str(self._path),
            )
            return None
        layout.write_atomically(self._path, json.dumps(now).encode())
        self._agreed = now
        return now

    def _read(self) -> float | None:
        try:
            return float(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            _log.warning("file of the host's clock is begun anew", file=str(self._path), error=str(error))
            return None
