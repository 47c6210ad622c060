"""Users' behaviour as matrices over top-level categories: what the entry model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.reasoner import UserContext
from serendipity.interests.search_matching import SearchMatcher
from serendipity.novelty import NO_CATEGORY

_DAY = 86_400.0
NEVER_DAYS = 730.0
"""Age that stands for "never" and that longer ages are cut at."""

SEARCH_CLICKS = 3.0
"""Clicks that a search just made, with a full match, stands for. No public data set has searches to fit it on."""

SEARCH_HALF_LIFE_DAYS = 7.0
ACTIVITY_HALF_LIFE_DAYS = 30.0


@dataclass(frozen=True)
class Behaviour:
    """B users and C categories; columns by category number, column NO_CATEGORY is empty.

    recent: [B, C + 1] float32, clicks among the latest 200. counts: [B, C + 1] float32, clicks ever, searches as
    clicks included. ages: [B, C + 1] float32, days since the last click or matching search, at most NEVER_DAYS.
    searched: [B, C + 1] float32, the part of counts that searches are. activity: [B] float32, Σ 2^(−age / 30 days)
    over the latest 200 clicks. unseen: [B, C + 1] bool, no click among the latest 200: where a user can enter.
    """

    recent: NDArray[np.float32]
    counts: NDArray[np.float32]
    ages: NDArray[np.float32]
    searched: NDArray[np.float32]
    activity: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.activity)

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Categories that are novel to each user, [B, C + 1]."""
        unseen: NDArray[np.bool_] = self.recent == 0
        unseen[:, NO_CATEGORY] = False
        return unseen

    @property
    def known(self) -> NDArray[np.bool_]:
        """Users with any click or search in a top-level category, [B]."""
        known: NDArray[np.bool_] = self.counts.any(axis=1)
        return known

    @cached_property
    def evidence(self) -> NDArray[np.float32]:
        """Weight of each category as evidence for others, [B, C + 1]: log(1 + recent) + ½ log(1 + ever)."""
        evidence: NDArray[np.float32] = np.log1p(self.recent) + np.float32(0.5) * np.log1p(self.counts)
        return evidence

    @classmethod
    def of(cls, users: Sequence[UserContext], num_categories: int, matcher: SearchMatcher) -> Behaviour:
        """Lay users' contexts out."""
        shape = (len(users), num_categories + 1)
        recent, counts, searched = (np.zeros(shape, np.float32) for _ in range(3))
        ages = np.full(shape, NEVER_DAYS, np.float32)
        activity = np.zeros(len(users), np.float32)
        for row, user in enumerate(users):
            recent[row] = np.bincount(user.clicks.categories, minlength=num_categories + 1)
            past = user.long_history
            counts[row, past.categories] = past.counts
            ages[row, past.categories] = np.minimum((user.now - past.last_times) / _DAY, NEVER_DAYS)
            activity[row] = np.exp2((user.clicks.times - user.now) / (ACTIVITY_HALF_LIFE_DAYS * _DAY)).sum()
            for query, time in user.searches:
                age = (user.now - time) / _DAY
                for category, strength in matcher.match(query).items():
                    searched[row, category] += SEARCH_CLICKS * strength * 2 ** (-age / SEARCH_HALF_LIFE_DAYS)
                    ages[row, category] = min(ages[row, category], age)
        recent[:, NO_CATEGORY] = 0
        return cls(recent, counts + searched, ages, searched, activity)
