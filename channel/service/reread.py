"""What is made of files and made anew when they change: certificates and callers are renewed without a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

_Value = TypeVar("_Value")
_log = structlog.stdlib.get_logger(__name__)


class CredentialsUnusable(OSError):
    """A certificate, a key or the file of callers cannot be used: names the file, what was found and expected."""


class Reread(Generic[_Value]):
    """A value that is read from files. read: makes it, or raises CredentialsUnusable, as this does then."""

    def __init__(self, files: Sequence[Path], read: Callable[[], _Value]) -> None:
        self._files, self._read = files, read
        # Before it is read: a file that changes meanwhile is read again.
        self._states = self._look()
        self.value = read()

    def changed(self) -> bool:
        """Read the files again if they have changed; tells whether there is a new value.

        Files that cannot be used are logged, once for each change of them, and the last value stays.
        """
        states = self._look()
        if states == self._states:
            return False
        self._states = states
        try:
            self.value = self._read()
        except CredentialsUnusable as error:
            _log.error("credentials not renewed: those of before stay in use", error=str(error))
            return False
        _log.info("credentials renewed", files=[str(path) for path in self._files])
        return True

    def _look(self) -> list[tuple[int, int] | None]:
        return [_state(path) for path in self._files]


def _state(path: Path) -> tuple[int, int] | None:
    """Tell files apart by what every write, change of mode and replacement of them alters; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
