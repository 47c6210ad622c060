"""The interaction records that cycles draw from: every click so far, with what was known of its user just before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.coevolution.config import ExamplesConfig
from serendipity.offline.coevolution.examples import Split, known_before, split_of
from serendipity.offline.logs.histories import Histories


@dataclass(frozen=True)
class Moment:
    """A record as the two LLMs are told it. group: of the user strictly before the click; recent: numbers of the
    latest distinct categories before it, newest first (C_s); long: numbers of all categories clicked before it."""

    group: int
    recent: tuple[int, ...]
    long: frozenset[int]


@dataclass(frozen=True)
class InteractionRecords:
    """The union of the records so far and a cycle's increment (arXiv 2508.00450, eq. 15).

    histories: all of it. groups: [n] int32, the group of the user strictly before each click of `histories`. clicks:
    the clicks that are records, ascending: those of the users that are trained on. increment: [n] bool, clicks that
    came since the models were tuned last.
    """

    histories: Histories
    groups: NDArray[np.int32]
    clicks: NDArray[np.int64]
    increment: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.clicks)

    @classmethod
    def of(
        cls,
        histories: Histories,
        groups: NDArray[np.int32],
        config: ExamplesConfig,
        *,
        split: Split = "train",
        increment: NDArray[np.bool_] | None = None,
    ) -> InteractionRecords:
        """Take the clicks of a split's users that have a category. increment: [n] bool; none: none of them is new.

        Raises ValueError when there is not a group for each click.
        """
        size = len(histories.items)
        if len(groups) != size:
            raise ValueError(f"groups: found {len(groups)}, expected one for each of {size} clicks")
        ours = np.array([split_of(user_id, config) == split for user_id in histories.user_ids], np.bool_)
        clicks = np.flatnonzero((histories.categories != NO_CATEGORY) & ours[histories.users])
        return cls(histories, groups, clicks, np.zeros(size, np.bool_) if increment is None else increment)

    def sample(self, share: float, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw a share of all records uniformly without replacement, `most` of them at most; ascending.

        A uniform draw of a uniform draw is one, so those above `most` are not drawn first and thrown away.
        """
        size = min(max(round(share * len(self)), 1), most, len(self))
        chosen: NDArray[np.int64] = np.sort(generator.choice(self.clicks, size, replace=False, shuffle=False))
        return chosen

    def moment(self, click: int) -> Moment:
        """Tell what was known before a click. Clicks of the same second do not know of each other."""
        user, time, recent, group = known_before(self.histories, self.groups, click)
        start = int(self.histories.offsets[user])
        before = self.histories.categories[start : start + self.histories.count_before(user, time)]
        return Moment(group, recent, frozenset(np.unique(before[before > 0]).tolist()))
