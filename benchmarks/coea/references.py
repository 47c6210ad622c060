"""The two rows that nothing personal goes into: popularity, and chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting


@dataclass(frozen=True)
class Popularity:
    """Categories by their training clicks, the same for all."""

    name: str = "Popularity"
    family: Family = "reference"
    settings: tuple[Setting, ...] = ({},)

    @property
    def configuration(self) -> Mapping[str, object]:
        """Nothing to configure."""
        return {}

    def fit(self, split: CategorySplit, seed: int) -> FittedPopularity:  # noqa: ARG002 - one signature for all
        """Count clicks."""
        return FittedPopularity(split.category_clicks.astype(np.float32))


@dataclass(frozen=True)
class FittedPopularity:
    """clicks: [C] float32."""

    clicks: NDArray[np.float32]

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:  # noqa: ARG002
        """Give everyone the same scores."""
        return np.tile(self.clicks, (len(episodes), 1))


@dataclass(frozen=True)
class Chance:
    """Categories in random order, another for each user."""

    name: str = "Random"
    family: Family = "reference"
    settings: tuple[Setting, ...] = ({},)

    @property
    def configuration(self) -> Mapping[str, object]:
        """Nothing to configure."""
        return {}

    def fit(self, split: CategorySplit, seed: int) -> FittedChance:
        """Learn nothing."""
        return FittedChance(split.num_categories, seed)


@dataclass(frozen=True)
class FittedChance:
    """Draws by seed."""

    num_categories: int
    seed: int

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:  # noqa: ARG002
        """Draw scores."""
        rng = np.random.default_rng([self.seed, len(episodes.histories.items)])
        return rng.random((len(episodes), self.num_categories)).astype(np.float32)


def methods() -> tuple[Method, ...]:
    """Both rows."""
    return (Chance(), Popularity())
