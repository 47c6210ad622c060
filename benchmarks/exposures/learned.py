"""What the channel's own features are worth when they are learned from what was shown, in the place of a replay.

A replay tells candidates that were clicked from all others, most of which nobody was shown. Here the same trees are
fitted on exposures alone: on what was clicked and what was not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.exposures.channel_scores import ChannelScores
from benchmarks.exposures.log import ExposureLog, click_rates
from serendipity.offline.merge.config import MergeConfig
from serendipity.offline.merge.model import columns_read, fit_trees
from serendipity.rank_features import FEATURE_NAMES

_CONFIG = MergeConfig(leaf_candidates=100)
"""A few thousand exposures are learned from, where a replay has hundreds of thousands of candidates."""

_PRIOR = 20.0
"""Exposures' worth of the overall click rate mixed into every item's."""


@dataclass(frozen=True)
class ScoredLog:
    """Exposures, n, as the channel scored them. before: all exposures before the moment it knew."""

    log: ExposureLog
    scored: ChannelScores
    before: ExposureLog

    def features(self, *, with_rates: bool) -> NDArray[np.float32]:
        """Lay out what trees read, [n, F] float32: the merge model's features, and the log of the item's click rate."""
        features = self.scored.features[:, columns_read(FEATURE_NAMES)]
        if not with_rates:
            return features
        size = 1 + int(max(log.rows.max(initial=0) for log in (self.log, self.before)))
        rates = click_rates(self.before, self.before.rows, size, _PRIOR)
        return np.column_stack([features, np.log(rates[self.log.rows])]).astype(np.float32)


def learned_scores(learned: ScoredLog, asked: ScoredLog, *, with_rates: bool) -> NDArray[np.float64]:
    """Fit on one period's exposures and score another's, [n]: −∞ for what the channel did not score."""
    names = [FEATURE_NAMES[column] for column in columns_read(FEATURE_NAMES)] + ["item_click_rate"] * with_rates
    known = np.isfinite(learned.scored.scores)
    trees = fit_trees(learned.features(with_rates=with_rates)[known], learned.log.clicked[known], names, _CONFIG)
    found = np.full(len(asked.log), -np.inf)
    known = np.isfinite(asked.scored.scores)
    if known.any():
        found[known] = trees.predict_proba(asked.features(with_rates=with_rates)[known])[:, 1]
    return found
