"""What the pipeline sees of this host's mutable state: feedback, availability, near-line interests, erasures.

All of it changes between snapshots; whoever keeps it (LMDB environments in the service, nothing at all in a replay)
implements `UserState`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class AvailabilityOverlay:
    """Availability changed since the snapshot was built.

    generation: grows with every change, so that readers rebuild what they derive only then;
    available: item id → whether it may be recalled. Ids, not rows: rows change with every snapshot, and
    an item unknown to this one may be in the next.
    """

    generation: int = 0
    available: Mapping[str, bool] = field(default_factory=dict)


class UserState(Protocol):
    """Mutable state of this host. Methods are called from several threads and must not block for long."""

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        """Return the user's acknowledged feedback, newest first; None without any.

        Raises StateUnavailable when it cannot be read.
        """

    def owns(self, user_id: str) -> bool:
        """Tell whether this host owns the user's feedback; if not, answers carry a NOT_OWNER warning."""

    def availability(self) -> AvailabilityOverlay:
        """Return the present overlay; the same object until something changes.

        Raises StateUnavailable when it cannot be read.
        """

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        """Return the interests generated for the user near-line, whatever their age and taxonomy; None without any.

        Raises StateUnavailable when they cannot be read.
        """

    def interest_paths(self, user_id: str, generated_at: int) -> records_pb2.InterestPathsRecord | None:
        """Return how the near-line interests generated at a moment were reached; None if others replaced them.

        Raises StateUnavailable when they cannot be read.
        """

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Ask for the user's interests to be generated near-line. priority: 0 to 1. Never waits, never raises."""

    def is_forgotten(self, user_id: str) -> bool:
        """Tell whether the user is on the erasure list: nothing that is stored of such a user may be used.

        Raises StateUnavailable when the list cannot be read.
        """


class EmptyUserState:
    """No feedback, no changes, nothing near-line: replays, and services that keep none."""

    def __init__(self) -> None:
        self._overlay = AvailabilityOverlay()

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:  # noqa: ARG002
        """Return None: nothing is recorded here."""
        return None

    def owns(self, user_id: str) -> bool:  # noqa: ARG002
        """Return True: there is no other owner."""
        return True

    def availability(self) -> AvailabilityOverlay:
        """Return the empty overlay."""
        return self._overlay

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:  # noqa: ARG002
        """Return None: nothing is generated here."""
        return None

    def interest_paths(self, user_id: str, generated_at: int) -> records_pb2.InterestPathsRecord | None:  # noqa: ARG002
        """Return None: nothing is generated here."""
        return None

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Do nothing: there is no queue."""

    def is_forgotten(self, user_id: str) -> bool:  # noqa: ARG002
        """Return False: there is no list."""
        return False
