"""What the pipeline sees of this host's mutable state: feedback, availability, near-line records, erasures.

All of it changes between snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serendipity.channel.nearline.wanted_list import WantedList
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


class UserState:
    """Mutable state of this host. Methods are called from several threads and must not block for long.

    This one keeps nothing, for replays and services without state; whoever keeps something overrides its methods.
    """

    def __init__(self) -> None:
        self._overlay = AvailabilityOverlay()

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:  # noqa: ARG002
        """Return the user's acknowledged feedback, newest first; None without any.

        Raises StateUnavailable when it cannot be read.
        """
        return None

    def owns(self, user_id: str) -> bool:  # noqa: ARG002
        """Tell whether this host owns the user's feedback; if not, answers carry a NOT_OWNER warning."""
        return True

    def availability(self) -> AvailabilityOverlay:
        """Return the present overlay; the same object until something changes.

        Raises StateUnavailable when it cannot be read.
        """
        return self._overlay

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:  # noqa: ARG002
        """Return the interests generated for the user near-line, whatever their age and taxonomy; None without any.

        Raises StateUnavailable when they cannot be read.
        """
        return None

    def interest_paths(self, user_id: str, generated_at: int) -> records_pb2.InterestPathsRecord | None:  # noqa: ARG002
        """Return how the near-line interests generated at a moment were reached; None if others replaced them.

        Raises StateUnavailable when they cannot be read.
        """
        return None

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Ask for the user's interests to be generated near-line. priority: 0 to 1. Never waits, never raises."""

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:  # noqa: ARG002
        """Return the list filled near-line for a key, whatever its generation and taxonomy; None without any.

        A record without categories says that the LLMs were asked and that nothing reached the threshold. Raises
        StateUnavailable when it cannot be read.
        """
        return None

    def want_novel_categories(self, want: WantedList) -> None:
        """Count a request for a list that is missing or not current; it is filled near-line once there were enough.

        Never waits, never raises.
        """

    def user_group(self, user_id: str) -> records_pb2.UserGroupRecord | None:  # noqa: ARG002
        """Return the group assigned to the user near-line, whatever its group model; None without any.

        Raises StateUnavailable when it cannot be read.
        """
        return None

    def want_group(self, user_id: str, num_clicks: int) -> None:
        """Ask for the user's group to be assigned near-line. num_clicks: kept clicks. Never waits, never raises."""

    def is_forgotten(self, user_id: str) -> bool:  # noqa: ARG002
        """Tell whether the user is on the erasure list: nothing that is stored of such a user may be used.

        Raises StateUnavailable when the list cannot be read.
        """
        return False
