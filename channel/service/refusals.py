"""Telling callers that a worker is too busy for them, at as little cost as can be to those that it answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

_A_SECOND = 300
"""Refusals told without delay: each takes time from those that are answered."""
_LONGEST_HOLD = 0.5
_TOLD_EVERY = 0.05
"""Refusals are told together: a worker that is interrupted for each answers fewer calls."""
_WITHOUT_DEADLINE = 0.1
"""Seconds that a caller who set no deadline is taken to have."""
_SHORTEST = 0.001
"""Nobody is held who has sixteen milliseconds left, or less."""


class Refusals:
    """Spaces the refusals of one worker. clock: seconds.

    One is told within 50 ms. When there are more than 300 a second, callers are held a while longer, so that a storm of
    new tries calms down; never for more than half of the time that a caller has.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = -math.inf

    async def hold(self, seconds: float | None) -> None:
        """Wait until a caller may be told. seconds: that it has left, None without a deadline."""
        await asyncio.sleep(self.hold_seconds(_WITHOUT_DEADLINE if seconds is None else seconds))

    def hold_seconds(self, left: float) -> float:
        """Take the next place among the refusals; returns the seconds until it is told."""
        now, every = self._clock(), min(_TOLD_EVERY, left / 16)
        self._last = min(max(now, self._last + 1 / _A_SECOND), now + min(_LONGEST_HOLD, left * 7 / 16))
        return max(0.0, math.ceil(self._last / every) * every - now) if every > _SHORTEST else 0.0
