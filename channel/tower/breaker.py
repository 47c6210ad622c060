"""A circuit breaker: a server that keeps failing is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed (calls pass) → open after `failures` in a row (none pass) → after `open_seconds` one call tries.

    For one event loop; not locked.
    """

    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, any origin."""
        self._most = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._opened_at = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        """True while calls are held back."""
        return self._failures >= self._most

    def admit(self) -> bool:
        """Tell whether a call may be made; one that may must end in `succeed`, `fail` or `abandon`."""
        if not self.is_open:
            return True
        if self._trying or self._clock() - self._opened_at < self._open_seconds:
            return False
        self._trying = True
        return True

    def succeed(self) -> None:
        """The call was answered: calls pass again."""
        self._failures = 0
        self._trying = False

    def fail(self) -> None:
        """The call failed: one more in a row."""
        self._failures += 1
        self._trying = False
        if self.is_open:
            self._opened_at = self._clock()

    def abandon(self) -> None:
        """The call says nothing about the server (it was cancelled, or had too little time)."""
        self._trying = False
