"""What ranked lists are judged by: every method's, by the same targets, places and weights.

recall                 novel targets among the first K / all of the user's
never, re-entry        the same of targets in categories the user never clicked before the cut, and of those clicked
                       long ago, before the latest 200 clicks
cold items             of targets whose item was first clicked in the 28 days before the cut
inverse popularity     each target weighs (users of the item before the cut)^−0.5
serendipity            hits weighted by how serendipity is felt at their unexpectedness, mean weight 1
                       (serendipity.offline.evaluate.unexpectedness) / all of the user's targets
exclusive              novel targets among the first K when the host's own lists are excluded: a number per user
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.click_statistics import RECENT_DAYS, ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.evaluate.unexpectedness import felt_weights, surprisals

RARITY_EXPONENT = 0.5
"""Power of an item's users before the cut that a target's weight is divided by."""

RECALLS = ("recall", "never", "re-entry", "cold items", "inverse popularity", "serendipity")
EXCLUSIVE = "exclusive"

PerUser = Mapping[tuple[str, int], NDArray[np.float64]]
"""(measure, K) → [users] values, NaN for a user without such a target."""


@dataclass(frozen=True)
class Judge:
    """Novel targets of some users, t in all, with what the measures ask of each.

    weights: measure → ([t] of a hit, [users] that their sum is divided by). host: [users, h] item rows of the host's
    own lists, −1 for none.
    """

    targets: Targets
    weights: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    host: NDArray[np.int64]

    @classmethod
    def of(
        cls, held_out: HeldOut, statistics: ClickStatistics, users: NDArray[np.int64], host: NDArray[np.int64]
    ) -> Judge:
        """Judge by the novel targets of these users, ascending; those without one are left out.

        host: [len(users), h], the item rows that the host of each has already.
        """
        targets = held_out.novel.of_users(users)
        owners = targets.owners
        categories = held_out.item_categories[targets.rows]
        never = statistics.never[targets.users][owners, categories]
        cold = statistics.first_clicks[targets.rows] >= held_out.cut - RECENT_DAYS * 86_400
        rarity = np.maximum(statistics.users[targets.rows], 1).astype(np.float64) ** -RARITY_EXPONENT
        felt = felt_weights(surprisals(statistics.own_clicks, targets.users)[owners, categories])
        counts = targets.counts.astype(np.float64)
        share_of = {
            "recall": np.ones(len(owners)), "never": never.astype(np.float64),
            "re-entry": (~never).astype(np.float64), "cold items": cold.astype(np.float64),
            "inverse popularity": rarity,
        }  # fmt: skip
        weights = {
            name: (weight, np.bincount(owners, weight, len(targets)).astype(np.float64))
            for name, weight in share_of.items()
        }
        weights["serendipity"] = (felt, counts)
        return cls(targets, weights, host[np.isin(users, targets.users)])

    def count(self, measure: str) -> int:
        """Count the targets that a measure looks at: those it weighs at all."""
        return int((self.weights[measure][0] > 0).sum())

    def recalls(self, ranked: NDArray[np.int64], depths: Sequence[int]) -> PerUser:
        """Measure lists that were made without regard to the host's."""
        places = self.targets.places(ranked)
        found = {}
        for name, (weight, total) in self.weights.items():
            for k in depths:
                sums = np.bincount(self.targets.owners, weight * (places < k), len(self.targets))
                found[name, k] = np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)
        return found

    def exclusive(self, ranked: NDArray[np.int64], depths: Sequence[int]) -> PerUser:
        """Measure lists that were made with the host's items excluded; a host's item never counts as found."""
        places = self.targets.places(ranked)
        span = int(max(self.host.max(initial=-1), self.targets.rows.max(initial=-1))) + 1
        known = (np.arange(len(self.host))[:, None] * span + self.host)[self.host >= 0]
        own = np.isin(self.targets.owners * span + self.targets.rows, known)
        return {
            (EXCLUSIVE, k): np.bincount(self.targets.owners, (places < k) & ~own, len(self.targets)).astype(np.float64)
            for k in depths
        }
