"""What is generated first, and when a failed attempt is repeated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from serendipity.v1 import records_pb2

PATIENCE_SECONDS = 86_400
"""An entry of the least priority goes before one of the highest that was queued so much later: none starves. It is part
of the order as stored, so the queue must be empty before it changes."""

_BAND = 0.25
_FLOORS: dict[int, float] = {
    records_pb2.REFRESH_CAUSE_MISSING: 3 * _BAND,
    records_pb2.REFRESH_CAUSE_TOO_OLD: 2 * _BAND,
    records_pb2.REFRESH_CAUSE_FOREIGN: _BAND,
    records_pb2.REFRESH_CAUSE_STALE: 0.0,
}

_RECENCY_HALF_LIFE_DAYS = 7.0
_MANY_CLICKS = 20
"""Clicks at which a user counts as half as active as one can be."""
_MANY_REQUESTS = 20
"""Requests at which a list is half as urgent as one can be."""


def refresh_priority(cause: int, num_clicks: int, latest_click: int, now: int) -> float:
    """Tell how urgent a user's interests are, 0 to 1.

    The cause (RefreshCause) decides: missing, too old, foreign, stale. Within it the user's activity
    does: half by how lately the user clicked, half by how much. num_clicks: of the latest 200; latest_click, now: Unix
    seconds, the first is not looked at without clicks.
    """
    activity = 0.0
    if num_clicks > 0:
        days = max(0, now - latest_click) / 86_400
        activity = 0.5 * 2 ** (-days / _RECENCY_HALF_LIFE_DAYS) + 0.5 * num_clicks / (num_clicks + _MANY_CLICKS)
    return _FLOORS.get(cause, 0.0) + _BAND * activity


def list_priority(requests: int) -> float:
    """Tell how urgent a novel-category list is, 0 to 1: by the requests that asked for it."""
    return requests / (requests + _MANY_REQUESTS)


def due(entry: records_pb2.NearlineEntry) -> float:
    """Moment (Unix seconds) that entries are ordered by, earliest first: its priority is a head start."""
    return entry.enqueued_at + PATIENCE_SECONDS * (1.0 - entry.priority)


@dataclass(frozen=True)
class BackOff:
    """How failed attempts are repeated.

    first, longest: seconds to the first repetition, which doubles with every failure, and at most; jitter: share of it
    that is added or taken off by hash of subject and attempt, so that what failed together is not repeated together.
    """

    first: float = 60.0
    longest: float = 6 * 3_600.0
    jitter: float = 0.25

    def delay(self, subject: str, attempts: int) -> float:
        """Seconds until the next attempt, after `attempts` that failed (at least 1). subject: its name."""
        plain = min(self.longest, self.first * 2.0 ** min(attempts - 1, 60))
        digest = hashlib.blake2b(f"{attempts} {subject}".encode(), digest_size=8).digest()
        return plain * (1 + self.jitter * (2 * int.from_bytes(digest, "big") / (2**64 - 1) - 1))
