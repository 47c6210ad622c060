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
_IN_A_BATCH = 0.25
"""Part of its time that a query may spend in a batch."""
_TOGETHER = 16
"""Queries of a batch at most: with more there is little to win."""
_LONGEST_HINT = 1.0


class Pace:
    """Means of what batches took, exponentially smoothed. clock: seconds.

    seconds_each: of a batch, for each of its queries; seconds_between: two answers while others wait, 0 until there was
    a time when queries waited: nobody is refused on arrival before that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds_each = 0.0
        self.seconds_between = 0.0
        self._clock = clock
        self._busy_since: float | None = None

    def note(self, seconds: float, size: int, *, others_wait: bool) -> None:
        """Learn from a batch that ended just now. others_wait: for its end."""
        self.seconds_each = _smoothed(self.seconds_each, seconds / size)
        now = self._clock()
        if self._busy_since is not None:
            self.seconds_between = _smoothed(self.seconds_between, (now - self._busy_since) / size)
        # What was slow once must not be held against those who come when it no longer is.
        self.seconds_between = min(self.seconds_between, seconds / size)
        self._busy_since = now if others_wait else None

    def batch_size(self, seconds: float) -> int:
        """Tell how many may be answered together with a query that has so many seconds, itself included."""
        return max(
            1, min(_TOGETHER, int(_IN_A_BATCH * seconds / self.seconds_each) if self.seconds_each else _TOGETHER)
        )

    def batch_seconds(self, seconds: float) -> float:
        """Foresee how long such a batch takes."""
        return self.batch_size(seconds) * self.seconds_each

    def admit(self, ahead: int, deadline: Deadline) -> None:
        """Raise Overloaded if a query with so many ahead of it cannot be answered in time, as things go."""
        left = deadline.remaining
        needed = (ahead * self.seconds_between + self.batch_seconds(left)) / _USEFUL
        if self.seconds_between and needed > left:
            raise self._overloaded(needed, left)

    def too_late(self, deadline: Deadline, seconds: float) -> DeadlinePassed | Overloaded | None:
        """Say why a query that has waited for its turn cannot be answered any more; None if it can.

        seconds: that it had when it came.
        """
        if deadline.expired:
            return DeadlinePassed("no time was left when its turn came")
        left, needed = deadline.remaining, self.batch_seconds(seconds)
        return self._overloaded(needed, left) if needed > left else None

    def _overloaded(self, needed: float, left: float) -> Overloaded:
        hint = min(max(needed - left, self.seconds_each), _LONGEST_HINT)
        return Overloaded(f"busy: found {left * 1e3:.0f} ms left, expected at least {needed * 1e3:.0f} ms", hint)


def _smoothed(mean: float, value: float) -> float:
    return value if not mean else mean + _SMOOTHING * (value - mean)
