"""When a request may be tried again, and how fast requests may follow each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_FIRST_WAIT = 0.5


@dataclass(frozen=True)
class Backoff:
    """How long to wait before trying again: doubling from half a second, never longer than max_wait seconds.

    jitter: in [0, 1); up to half of the wait is left to it, so that many who failed together do not return together.
    """

    max_wait: float
    jitter: Callable[[], float] = random.random

    def seconds(self, failures: int) -> float:
        """Seconds to wait after so many failures, at least one."""
        longest = min(self.max_wait, _FIRST_WAIT * 2.0 ** min(failures - 1, 30))
        return longest * (1 - self.jitter() / 2)


class RequestRate:
    """Spaces requests evenly, so that no more begin per minute than allowed. clock: seconds."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float]) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = clock()

    def turn(self) -> float:
        """Take the next turn; returns the seconds until it."""
        now = self._clock()
        at = max(now, self._next)
        self._next = at + self._interval
        return at - now

    def pause(self, seconds: float) -> None:
        """Give no turn for a while: an endpoint that has met its limit has met it for all requests."""
        self._next = max(self._next, self._clock() + seconds)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float:
    """Read how many seconds a server asks to wait (Retry-After, RFC 9110 § 10.2.3); 0 where it does not say."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())
