"""What the pipeline sees of this host's mutable state: feedback and availability.

Both change between snapshots; whoever keeps them (an LMDB environment in the service, nothing at all
in a replay) implements `UserState`.
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


class EmptyUserState:
    """No feedback and no changes: replays, and services that record none."""

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
