"""The mutable state of this host as the pipeline sees it: the feedback and availability stores behind `UserState`."""

from __future__ import annotations

from serendipity.channel.availability import AvailabilityReader
from serendipity.channel.feedback import FeedbackStore
from serendipity.channel.state import AvailabilityOverlay
from serendipity.v1 import records_pb2


class HostState:
    """UserState on the stores all workers of the host share."""

    def __init__(self, feedback: FeedbackStore, availability: AvailabilityReader) -> None:
        self._feedback = feedback
        self._availability = availability

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        """Return the user's acknowledged feedback, newest first; None without any. Raises StateUnavailable."""
        return self._feedback.user(user_id)

    def owns(self, user_id: str) -> bool:
        """Tell whether this host owns the user's feedback."""
        return self._feedback.ownership.owns(user_id)

    def availability(self) -> AvailabilityOverlay:
        """Return the present overlay; the same object until something changes."""
        return self._availability.overlay()
