"""What is told of a user, from what is stored of the user: one code for training data and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serendipity.features import LongHistory
from serendipity.interests.prompt import CategoryFact, UserFacts
from serendipity.novelty import NO_CATEGORY, Clicks

_DAY = 86_400


def user_facts(
    clicks: Clicks,
    long_history: LongHistory,
    categories: Sequence[str],
    now: int,
    *,
    profile: Mapping[str, str] | None = None,
    searches: Sequence[str] = (),
    titles: Sequence[str] = (),
) -> UserFacts:
    """Describe a user as of `now` (Unix seconds), from what happened before.

    clicks: latest 200, newest first; long_history: every category ever clicked; categories: names by number − 1;
    searches, titles: newest first. Ties are ordered by category number, so that the same user always reads the same.
    """
    recent: dict[int, list[int]] = {}
    for category, time in zip(clicks.categories.tolist(), clicks.times.tolist(), strict=True):
        if category != NO_CATEGORY:
            recent.setdefault(category, []).append(time)
    by_clicks = sorted(recent.items(), key=lambda item: (-len(item[1]), item[0]))
    order = np.lexsort((long_history.categories, -long_history.last_times))
    not_earlier = {NO_CATEGORY, *recent}
    earlier = [i for i in order.tolist() if int(long_history.categories[i]) not in not_earlier]
    return UserFacts(
        profile=dict(profile or {}),
        searches=tuple(searches),
        titles=tuple(titles),
        recent=tuple(
            CategoryFact(categories[category - 1], len(times), _days(now, max(times))) for category, times in by_clicks
        ),
        earlier=tuple(
            CategoryFact(
                categories[int(long_history.categories[i]) - 1],
                int(long_history.counts[i]),
                _days(now, int(long_history.last_times[i])),
            )
            for i in earlier
        ),
    )


def _days(now: int, time: int) -> int:
    return max(0, now - time) // _DAY
