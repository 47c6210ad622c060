"""What is told of a user, from what is stored of the user: one code for training data and for serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from serendipity.features import LongHistory
from serendipity.interests.prompt import MAX_SEARCHES, MAX_TITLES, CategoryFact, UserFacts
from serendipity.interests.reasoner import UserContext
from serendipity.novelty import NO_CATEGORY, Clicks

SIGNAL_DAYS = 30.0
"""Days that searches, views and the like speak for a user (Dewu, arXiv 2508.04032: searches of the past 30 days)."""

_DAY = 86_400


class FactsRule(Protocol):
    """Which of a user's signals feed the prompt: FactsSpec in the spec of a model, FactsConfig in a build."""

    @property
    def search_days(self) -> float:
        """Days of searches; 0: none."""

    @property
    def clicked_titles(self) -> str:
        """When titles of the items clicked last are told: "always", "without searches" or "never"."""

    @property
    def signal_titles(self) -> bool:
        """Whether titles of items viewed, made a favourite and the like are told."""


def facts_of(
    context: UserContext, categories: Sequence[str], title_of: Callable[[int], str], rule: FactsRule
) -> UserFacts:
    """Describe a user as of the context's moment.

    categories: names of the top-level categories by number − 1; title_of: item row → title.
    """
    searches = told_searches(context.searches, context.now, rule)
    return user_facts(
        context.clicks,
        context.long_history,
        categories,
        context.now,
        profile=context.profile,
        searches=searches,
        titles=told_titles(context.clicks, context.signals, title_of, rule, has_searches=bool(searches)),
    )


def told_searches(searches: Sequence[tuple[str, int]], now: int, rule: FactsRule) -> list[str]:
    """Choose the searches that are told, each once. searches: (query, Unix seconds), newest first."""
    earliest = now - rule.search_days * _DAY
    recent = (query for query, time in searches if time >= earliest and rule.search_days)
    return [*dict.fromkeys(recent)][: 4 * MAX_SEARCHES]


def told_titles(
    clicks: Clicks,
    signals: Sequence[tuple[int, int]],
    title_of: Callable[[int], str],
    rule: FactsRule,
    *,
    has_searches: bool,
) -> list[str]:
    """Choose the titles that are told: newest first, each once, clicks before other signals of the same second.

    signals: (item row + 1, Unix seconds) of views and the like, newest first; title_of: item row → title;
    has_searches: whether searches are told.
    """
    seen: list[tuple[int, int]] = []
    if rule.clicked_titles == "always" or (rule.clicked_titles == "without searches" and not has_searches):
        seen += zip(clicks.items.tolist(), clicks.times.tolist(), strict=True)
    if rule.signal_titles:
        seen += signals
    titles: dict[str, None] = {}
    for item in dict.fromkeys(item for item, _ in sorted(seen, key=lambda event: -event[1]) if item):
        if len(titles) == 4 * MAX_TITLES:
            break
        titles[title_of(item - 1)] = None
    return list(titles)


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
    searches, titles: newest first. The profile is ordered by name and ties by category number, so that the same user
    always reads the same.
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
        profile=dict(sorted((profile or {}).items())),
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
