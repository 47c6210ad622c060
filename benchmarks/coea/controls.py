"""Controls: what a fixed bonus for categories the user never clicked makes of popularity and of the category ranker.

A row that cannot do better than relevance + bonus owes its novelty to nothing it has learned. "Never clicked" is of the
history that is known when the user is asked for. The bonus is the trade-off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.category_ranker import FittedRanker, RankerConfig, fit_ranker
from benchmarks.coea.code_digest import code_of
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting

BONUSES: tuple[Setting, ...] = tuple({"bonus": bonus} for bonus in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0))


@dataclass(frozen=True)
class PopularityBonus:
    """log(1 + training clicks of the category) + bonus · [never clicked]."""

    name: str = "Popularity + bonus"
    family: Family = "control"
    settings: tuple[Setting, ...] = BONUSES

    @property
    def configuration(self) -> Mapping[str, object]:
        """Nothing to configure."""
        return {}

    def fit(self, split: CategorySplit, seed: int) -> FittedBonus:  # noqa: ARG002 - one signature for all
        """Count clicks."""
        popularity = np.log1p(split.category_clicks).astype(np.float32)
        return FittedBonus(lambda episodes: np.tile(popularity, (len(episodes), 1)))


@dataclass(frozen=True)
class RankerBonus:
    """The category ranker's score + bonus · [never clicked]."""

    ranker: RankerConfig = field(default_factory=RankerConfig)
    name: str = "Category ranker + bonus"
    family: Family = "control"
    settings: tuple[Setting, ...] = BONUSES

    @property
    def configuration(self) -> Mapping[str, object]:
        """The ranker's, and its code."""
        return {**self.ranker.model_dump(), "code": code_of(FittedRanker.__module__)}

    def fit(self, split: CategorySplit, seed: int) -> FittedBonus:
        """Train the ranker."""
        return FittedBonus(fit_ranker(split, self.ranker, seed).scores)


@dataclass(frozen=True)
class FittedBonus:
    """relevance: scores before the bonus, [n, C] float32."""

    relevance: Callable[[Episodes], NDArray[np.float32]]

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Add the bonus where the user never clicked."""
        return self.relevance(episodes) + np.float32(setting["bonus"]) * ~episodes.clicked


def methods() -> tuple[Method, ...]:
    """Both rows."""
    return (PopularityBonus(), RankerBonus())
