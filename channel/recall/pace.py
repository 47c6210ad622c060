"""How fast queries are answered, learned from those that were: what tells whether one more can be answered in time."""

from __future__ import annotations

import time
from collections.abc import Callable

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed, Overloaded

_SMOOTHING = 0.1
_USEFUL = 0.5
"""Part of the time left within which an answer must be foreseen: what is foreseen is a mean, and who has waited most
of the time would be answered without the user tower. A longer queue answers no more calls, only later."""
_LONGEST_HINT = 1.0


class Pace:
    """Means of what batches took, exponentially smoothed. clock: seconds.

    batch_seconds: a batch, from its beginning to its answers; query_seconds: between two answers while others wait,
    0 until there was a time when queries waited: nobody is refused on arrival before that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.batch_seconds = 0.0
        self.query_seconds = 0.0
        self._clock = clock
        self._busy_since: float | None = None

    def note(self, seconds: float, size: int, *, others_wait: bool) -> None:
        """Learn from a batch that ended just now. others_wait: for its end."""
        self.batch_seconds = _smoothed(self.batch_seconds, seconds)
        now = self._clock()
        if self._busy_since is not None:
            self.query_seconds = _smoothed(self.query_seconds, (now - self._busy_since) / size)
        # What was slow once must not be held against those who come when it no longer is.
        self.query_seconds = min(self.query_seconds, seconds / size)
        self._busy_since = now if others_wait else None

    def admit(self, ahead: int, deadline: Deadline) -> None:
        """Raise Overloaded if a query with so many ahead of it cannot be answered in time, as things go."""
        needed = (ahead * self.query_seconds + self.batch_seconds) / _USEFUL
        if self.query_seconds and needed > deadline.remaining:
            raise self._overloaded(needed, deadline)

    def too_late(self, deadline: Deadline) -> DeadlinePassed | Overloaded | None:
        """Say why a query that has waited for its turn cannot be answered in time any more; None if it can."""
        if deadline.expired:
            return DeadlinePassed("no time was left when its turn came")
        needed = self.batch_seconds
        return self._overloaded(needed, deadline) if needed > deadline.remaining else None

    def _overloaded(self, needed: float, deadline: Deadline) -> Overloaded:
        left = deadline.remaining
        hint = min(max(needed - left, self.batch_seconds), _LONGEST_HINT)
        return Overloaded(f"busy: found {left * 1e3:.0f} ms left, expected at least {needed * 1e3:.0f} ms", hint)


def _smoothed(mean: float, value: float) -> float:
    return value if not mean else mean + _SMOOTHING * (value - mean)
