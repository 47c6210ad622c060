"""The mutable state of this host as the pipeline sees it: the stores all workers share, behind `UserState`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.wanted_list import WantedList
from serendipity.channel.state.availability import AvailabilityReader
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.feedback_event import Ownership
from serendipity.channel.state.state import AvailabilityOverlay, UserState
from serendipity.layout import user_key
from serendipity.v1 import records_pb2

_EVERYONE = Ownership()
_REMEMBERED_USERS = 100_000


class HostState(UserState):
    """UserState on the stores all workers of the host share; they stay the caller's to close.

    feedback, nearline, erasures: give the open store, or raise StateUnavailable; ownership: users whose feedback is
    kept here; want_interval: seconds within which a user's interests, or group, are not wanted again by this process,
    so that those asked for all the time do not flood the queue; on_want: told the cause of every want of interests
    passed on; clock: seconds, ever growing.
    """

    def __init__(
        self,
        feedback: Callable[[], FeedbackStore],
        availability: AvailabilityReader,
        nearline: Callable[[], NearlineStore],
        erasures: Callable[[], ErasureList],
        *,
        ownership: Ownership = _EVERYONE,
        want_interval: float = 60.0,
        on_want: Callable[[records_pb2.RefreshCause], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feedback = feedback
        self._availability = availability
        self._nearline = nearline
        self._erasures = erasures
        self._ownership = ownership
        self._on_want = on_want
        self._asked_interests = _RecentlySeen(want_interval, _REMEMBERED_USERS, clock)
        self._asked_groups = _RecentlySeen(want_interval, _REMEMBERED_USERS, clock)

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        """Return the user's acknowledged feedback, newest first; None without any. Raises StateUnavailable."""
        return self._feedback().user(user_id)

    def owns(self, user_id: str) -> bool:
        """Tell whether this host owns the user's feedback."""
        return self._ownership.owns(user_id)

    def availability(self) -> AvailabilityOverlay:
        """Return the present overlay; the same object until something changes."""
        return self._availability.overlay()

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        """Return the user's near-line interests; None without any. Raises StateUnavailable."""
        return self._nearline().interests(user_id)

    def interest_paths(self, user_id: str, generated_at: int) -> records_pb2.InterestPathsRecord | None:
        """Return how the near-line interests generated at a moment were reached. Raises StateUnavailable."""
        return self._nearline().paths(user_id, generated_at)

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Queue the user, unless this process did so a moment ago."""
        if self._asked_interests.is_new(user_id):
            with contextlib.suppress(StateUnavailable):
                self._nearline().want(user_id, cause, priority)
                self._on_want(cause)

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        """Return the list filled near-line for a key; None without any. Raises StateUnavailable."""
        return self._nearline().novel_categories(key)

    def want_novel_categories(self, want: WantedList) -> None:
        """Count a request for a list; every one counts, since the requests decide whether it is filled."""
        with contextlib.suppress(StateUnavailable):
            self._nearline().want_list(want)

    def user_group(self, user_id: str) -> records_pb2.UserGroupRecord | None:
        """Return the group assigned to the user near-line; None without any. Raises StateUnavailable."""
        return self._nearline().group(user_id)

    def want_group(self, user_id: str, num_clicks: int) -> None:
        """Queue the user, unless this process did so a moment ago."""
        if self._asked_groups.is_new(user_id):
            with contextlib.suppress(StateUnavailable):
                self._nearline().want_group(user_id, num_clicks)

    def is_forgotten(self, user_id: str) -> bool:
        """Tell whether the user is on the erasure list. Raises StateUnavailable."""
        return self._erasures().contains(user_id)


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
