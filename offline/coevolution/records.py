"""The interaction records that cycles draw from: every click so far, with what was known of its user just before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.coevolution.config import ExamplesConfig
from serendipity.offline.coevolution.examples import split_of
from serendipity.offline.logs.histories import Histories


@dataclass(frozen=True)
class InteractionRecords:
    """The union of the records so far and a cycle's increment (arXiv 2508.00450, eq. 15).

    histories: all of it. groups: [n] int32, the group of the user strictly before each click of `histories`. clicks:
    the clicks that are records, ascending: those of the users that are trained on.
    """

    histories: Histories
    groups: NDArray[np.int32]
    clicks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.clicks)

    @classmethod
    def of(cls, histories: Histories, groups: NDArray[np.int32], config: ExamplesConfig) -> InteractionRecords:
        """Take the clicks of the trained users that have a category. Raises ValueError if groups are fewer or more."""
        size = len(histories.items)
        if len(groups) != size:
            raise ValueError(f"groups: found {len(groups)}, expected one for each of {size} clicks")
        ours = np.array([split_of(user_id, config) == "train" for user_id in histories.user_ids], np.bool_)
        clicks = np.flatnonzero((histories.categories != NO_CATEGORY) & ours[histories.users])
        return cls(histories, groups, clicks)

    def sample(self, share: float, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw a share of all records uniformly without replacement, `most` of them at most; ascending.

        A uniform draw of a uniform draw is one, so those above `most` are not drawn first and thrown away.
        """
        size = min(max(round(share * len(self)), 1), most, len(self))
        chosen: NDArray[np.int64] = np.sort(generator.choice(self.clicks, size, replace=False, shuffle=False))
        return chosen
