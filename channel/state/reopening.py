"""A store that may fail to open: those who use it are told so, and it is tried again, while everything else serves."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import structlog

from serendipity.channel.errors import StateUnavailable

_log = structlog.stdlib.get_logger(__name__)


class _Closable(Protocol):
    def close(self) -> None: ...


_Store = TypeVar("_Store", bound=_Closable)


class Reopening(Generic[_Store]):
    """Holds one store of the host's state, opened now or, if that fails, when it is next needed and can be.

    name: for messages; open_store: raises StateUnavailable; retry_seconds: between tries; clock: seconds, ever growing.
    A worker that died of a store it cannot open would be restarted for ever, and answer nothing at all.
    """

    def __init__(
        self,
        name: str,
        open_store: Callable[[], _Store],
        *,
        retry_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._open = open_store
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: _Store | None = None
        self._next_try = float("-inf")
        self._closed = False
        with contextlib.suppress(StateUnavailable):
            self.store()

    def store(self) -> _Store:
        """Return the open store. Raises StateUnavailable while it cannot be opened, and after close."""
        opened = self._opened
        if opened is not None:
            return opened
        with self._lock:
            if self._opened is None and not self._closed:
                self._try()
            if self._opened is None:
                # Without the path: this reaches callers, whom this machine's directories do not concern.
                raise StateUnavailable(f"{self.name}: cannot be opened; the logs say why")
            return self._opened

    @property
    def is_open(self) -> bool:
        """True while the store is open."""
        return self._opened is not None

    def close(self) -> None:
        """Close the store, if it is open, for good."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _try(self) -> None:
        now = self._clock()
        if now < self._next_try:
            return
        self._next_try = now + self._retry_seconds
        try:
            self._opened = self._open()
        except StateUnavailable as error:
            _log.error("store not opened", store=self.name, error=str(error), retry_seconds=self._retry_seconds)
