"""What the pipeline sees of this host's mutable state: feedback, availability, near-line records, erasures.

All of it changes between snapshots.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import WantedList
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.feedback_event import Ownership
from serendipity.layout import user_key
from serendipity.v1 import records_pb2

_EVERYONE = Ownership()
_REMEMBERED_USERS = 100_000


@dataclass(frozen=True)
class AvailabilityOverlay:
    """Availability changed since the snapshot was built.

    generation: grows with every change, so that readers rebuild what they derive only then;
    available: item id → whether it may be recalled. Ids, not rows: rows change with every snapshot, and
    an item unknown to this one may be in the next.
    """

    generation: int = 0
    available: Mapping[str, bool] = field(default_factory=dict)


class UserState:
    """Mutable state of this host, in the stores that all its workers share; they stay the caller's to close.

    feedback, nearline, erasures: give the open store, or raise StateUnavailable; availability: gives the present
    overlay; without them nothing is kept, as in replays. ownership: users whose feedback is kept here; want_interval:
    seconds within which a user's interests are not wanted again by this process, so that those asked for all the time
    do not flood the queue; clock: seconds, ever growing. Methods are called from several threads, do not
    block for long, and raise StateUnavailable when the state cannot be read.
    """

    def __init__(
        self,
        feedback: Callable[[], FeedbackStore] | None = None,
        availability: Callable[[], AvailabilityOverlay] | None = None,
        nearline: Callable[[], NearlineStore] | None = None,
        erasures: Callable[[], ErasureList] | None = None,
        *,
        ownership: Ownership = _EVERYONE,
        want_interval: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        unchanged = AvailabilityOverlay()
        self._feedback = feedback
        self._availability = availability or (lambda: unchanged)
        self._nearline = nearline
        self._erasures = erasures
        self._ownership = ownership
        self._asked = _RecentlySeen(want_interval, _REMEMBERED_USERS, clock)

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        """Return the user's acknowledged feedback, newest first; None without any."""
        return self._feedback and self._feedback().user(user_id)

    def owns(self, user_id: str) -> bool:
        """Tell whether this host owns the user's feedback; if not, answers carry a NOT_OWNER warning."""
        return self._ownership.owns(user_id)

    def availability(self) -> AvailabilityOverlay:
        """Return the present overlay; the same object until something changes."""
        return self._availability()

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        """Return the interests generated for the user near-line, whatever their age and taxonomy; None without any."""
        return self._nearline and self._nearline().interests(user_id)

    def interest_paths(self, user_id: str, generated_at: int) -> records_pb2.InterestPathsRecord | None:
        """Return how the near-line interests generated at a moment were reached; None if others replaced them."""
        return self._nearline and self._nearline().paths(user_id, generated_at)

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Ask for the user's interests to be generated near-line, unless this process did so a moment ago.

        priority: 0 to 1. Never waits, never raises.
        """
        if self._nearline and self._asked.is_new(user_id):
            with contextlib.suppress(StateUnavailable):
                self._nearline().want(user_id, cause, priority)

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        """Return the list filled near-line for a key, whatever its generation and taxonomy; None without any.

        A record without categories says that the LLMs were asked and that nothing reached the threshold.
        """
        return self._nearline and self._nearline().novel_categories(key)

    def want_novel_categories(self, want: WantedList) -> None:
        """Count a request for a list that is missing or not current; it is filled near-line once there were enough.

        Never waits, never raises.
        """
        if self._nearline:
            with contextlib.suppress(StateUnavailable):
                self._nearline().want_list(want)

    def is_forgotten(self, user_id: str) -> bool:
        """Tell whether the user is on the erasure list: nothing that is stored of such a user may be used."""
        return self._erasures is not None and self._erasures().contains(user_id)


class _RecentlySeen:
    """The users seen within an interval, at most `most` of them; those seen longest ago are let go first."""

    def __init__(self, interval: float, most: int, clock: Callable[[], float]) -> None:
        self._interval = interval
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        # By key, which is never longer than 511 bytes.
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def is_new(self, user_id: str) -> bool:
        """Tell whether the user was not seen within the interval, and take note."""
        key, now = user_key(user_id), self._clock()
        with self._lock:
            # In order of time, since a user seen again too soon keeps the earlier moment.
            while self._seen and (len(self._seen) >= self._most or self._oldest() <= now - self._interval):
                self._seen.popitem(last=False)
            if key in self._seen:
                return False
            self._seen[key] = now
            return True

    def _oldest(self) -> float:
        return next(iter(self._seen.values()))
