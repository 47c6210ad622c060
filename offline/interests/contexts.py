"""What is known of users at a moment, from their histories."""

from __future__ import annotations

from collections.abc import Iterable

from serendipity.features import LongHistory
from serendipity.interests.facts import SIGNAL_DAYS
from serendipity.interests.reasoner import UserContext
from serendipity.novelty import Clicks
from serendipity.offline.logs.histories import Histories


def contexts_at(histories: Histories, time: int, users: Iterable[int] | None = None) -> list[UserContext]:
    """Take the context of users (numbers; None: all, in order) from what happened strictly before a moment."""
    return [
        UserContext(
            user_id=histories.user_ids[user],
            clicks=histories.clicks_before(user, time),
            long_history=histories.long_history_before(user, time),
            now=time,
            searches=histories.searches_before(user, time, SIGNAL_DAYS),
            profile=histories.profiles[user],
            signals=histories.signals_before(user, time, SIGNAL_DAYS),
        )
        for user in (range(len(histories)) if users is None else users)
    ]


def cold_context(now: int) -> UserContext:
    """Give the context of a user of whom nothing is known."""
    return UserContext("", Clicks.empty(), LongHistory.empty(), now)
