"""The interaction records that cycles draw from: every click so far, with what was known of its user just before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.sequence import latest_distinct
from serendipity.offline.logs.histories import Histories


@dataclass(frozen=True)
class Moment:
    """A record as the two LLMs are told it. group: of the user strictly before the click; recent: numbers of the
    latest distinct categories before it, newest first (C_s); category: of the click; long: numbers of all categories
    clicked before it."""

    group: int
    recent: tuple[int, ...]
    category: int
    long: frozenset[int]


@dataclass(frozen=True)
class InteractionRecords:
    """The union of the records so far and a cycle's increment (arXiv 2508.00450, eq. 15).

    histories: all of it. groups: [n] int32, the group of the user strictly before each click of `histories`.
    increment: [n] bool, clicks that came since the models were tuned last.
    """

    histories: Histories
    groups: NDArray[np.int32]
    increment: NDArray[np.bool_]

    def __post_init__(self) -> None:
        clicks = len(self.histories.items)
        if not len(self.groups) == len(self.increment) == clicks:
            raise ValueError(
                f"InteractionRecords: found {len(self.groups)} groups and {len(self.increment)} marks, expected one "
                f"for each of {clicks} clicks"
            )

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def of(cls, histories: Histories, groups: NDArray[np.int32]) -> InteractionRecords:
        """Take histories alone, without an increment."""
        return cls(histories, groups, np.zeros(len(groups), np.bool_))

    def sample(self, share: float, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw a share of all records uniformly without replacement, `most` of them at most; ascending.

        A uniform draw of a uniform draw is one, so those above `most` are not drawn first and thrown away.
        """
        size = min(max(round(share * len(self)), 1), most, len(self))
        chosen: NDArray[np.int64] = np.sort(generator.choice(len(self), size, replace=False, shuffle=False))
        return chosen

    def moment(self, click: int) -> Moment:
        """Tell what was known before a click. Clicks of the same second do not know of each other."""
        histories = self.histories
        user, time = int(histories.users[click]), int(histories.times[click])
        start = int(histories.offsets[user])
        before = histories.categories[start : start + histories.count_before(user, time)]
        return Moment(
            group=int(self.groups[click]),
            recent=tuple(latest_distinct(histories.clicks_before(user, time))),
            category=int(histories.categories[click]),
            long=frozenset(np.unique(before[before > 0]).tolist()),
        )
