"""When users are described, and what they entered afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.layout import hash_of
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.logs.histories import Histories

DAY = 86_400

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

_CUT_SECONDS = 7 * DAY
"""Distance of the moments that users are described at."""

_TEST_SHARE = 0.15
"""Share of the users, by hash, that InterestGPT is judged on."""

_VALIDATION_SHARE = 0.15
"""Share of the users, by hash, that the weight of its likelihoods is chosen on and nothing is trained on."""


class LogsTooShortError(ValueError):
    """The logs hold no moment with a horizon before and after it: says how long they are and should be."""


def judged_at(until: int, config: DatasetConfig) -> int:
    """Give the moment (Unix seconds) that InterestGPT is judged as of: its horizon ends with the logs."""
    return until - round(config.horizon_days * DAY)


def cuts_of(histories: Histories, until: int, config: DatasetConfig) -> list[int]:
    """List the moments (Unix seconds) of the data set, latest first.

    All of a moment's horizon lies before `judged_at`, so that nothing of what is judged by is learned from, and as much
    time as the horizon of history before the moment. Raises LogsTooShortError when the logs are too short for one.
    """
    horizon = round(config.horizon_days * DAY)
    earliest = (int(histories.times.min()) if len(histories.times) else until) + horizon
    latest = judged_at(until, config) - horizon
    cuts = [cut for index in range(config.max_cuts) if (cut := latest - index * _CUT_SECONDS) >= earliest]
    if not cuts:
        raise LogsTooShortError(
            f"dataset.horizon_days: found {config.horizon_days:g} and logs of {(until - earliest + horizon) / DAY:.1f} "
            "days, expected logs of at least three times the horizon"
        )
    return cuts


def split_of(user_id: str) -> str:
    """Tell the split of a user: by hash, so that it is the same in every build."""
    place = int(hash_of([b"distillation", user_id.encode()])[:12], 16) / float(16**12)
    if place < _TEST_SHARE:
        return TEST
    return VALIDATION if place < _TEST_SHARE + _VALIDATION_SHARE else TRAIN


def entered_between(
    histories: Histories, start: int, days: float, num_categories: int, users: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark the top-level categories that users newly enter within `days` of a moment: [len(users), categories + 1].

    Entered: clicked in then, and not among the latest 200 clicks before. Column NO_CATEGORY is False.
    """
    entered = np.zeros((len(users), num_categories + 1), np.bool_)
    end = start + round(days * DAY)
    for row, user in enumerate(users.tolist()):
        first = int(histories.offsets[user])
        last = first + histories.count_before(user, end)
        first += histories.count_before(user, start)
        entered[row, histories.categories[first:last]] = True
        entered[row, histories.clicks_before(user, start).categories] = False
    entered[:, NO_CATEGORY] = False
    return entered
