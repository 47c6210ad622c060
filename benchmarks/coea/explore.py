"""EXPLORE: relevance and distance joined by a copula (Coppolillo et al., KDD 2024, arXiv 2408.03772, section 5).

A candidate's relevance R(u, c) comes from a ranker, its marginal diversity is the sum of its distances to what the user
already took, D(u, c) = Σ_{c' ∈ P_u} d(c, c'), with the Jaccard distance of the sets of users who clicked the two. Both
are scaled to 0 … 1 over the candidates and joined by Clayton's copula
C_α(r, δ) = (r^{−α} + δ^{−α} − 1)^{−1/α}; the list is its best first. α = 0.5 in the paper, where distance has full
strength. For the trade-off that every method here is given, δ enters as 1 − w + w·δ: w = 0 is relevance alone, w = 1
the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.category_ranker import FittedRanker, RankerConfig, fit_ranker
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting, category_counts

_EPSILON = 1e-6
"""Keeps the negative powers finite."""


@dataclass(frozen=True)
class Explore:
    """The row EXPLORE."""

    ranker: RankerConfig = field(default_factory=RankerConfig)
    name: str = "EXPLORE"
    family: Family = "exploration"
    settings: tuple[Setting, ...] = field(
        default_factory=lambda: tuple(
            {"alpha": alpha, "strength": strength}
            for alpha in (0.5, 2.0)
            for strength in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
        )
    )

    @property
    def configuration(self) -> Mapping[str, object]:
        """The ranker's."""
        return self.ranker.model_dump()

    def fit(self, split: CategorySplit, seed: int) -> FittedExplore:
        """Train the ranker and measure the categories' distances."""
        taken = category_counts(split.training, split.num_categories) > 0
        return FittedExplore(fit_ranker(split, self.ranker, seed), jaccard_distances(taken))


@dataclass(frozen=True)
class FittedExplore:
    """distances: [C, C]."""

    ranker: FittedRanker
    distances: NDArray[np.float64]

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Join relevance and distance."""
        relevance = self.ranker.scores(episodes).astype(np.float64)
        # Of the cross-entropy's scores, shares: their exponentials.
        relevance = np.exp(relevance - relevance.max(axis=1, keepdims=True))
        distance = episodes.clicked.astype(np.float64) @ self.distances
        near = scaled(relevance, episodes.candidates)
        strength = setting["strength"]
        far = 1.0 - strength + strength * scaled(distance, episodes.candidates)
        return clayton(near, far, setting["alpha"]).astype(np.float32)


def clayton(r: NDArray[np.float64], d: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Clayton's copula C_α(r, d) = (r^{−α} + d^{−α} − 1)^{−1/α}, α > 0; r, d in 0 … 1."""
    joined: NDArray[np.float64] = (np.maximum(r, _EPSILON) ** -alpha + np.maximum(d, _EPSILON) ** -alpha - 1) ** (
        -1 / alpha
    )
    return joined


def scaled(values: NDArray[np.float64], candidates: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scale each row to 0 … 1 over its candidates; what is constant there becomes 1. Both [n, C]."""
    low = np.where(candidates, values, np.inf).min(axis=1, keepdims=True)
    high = np.where(candidates, values, -np.inf).max(axis=1, keepdims=True)
    width = high - low
    return np.clip(np.where(width > 0, (values - low) / np.where(width > 0, width, 1.0), 1.0), 0.0, 1.0)


def jaccard_distances(taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure 1 − |A ∩ B| / |A ∪ B| of the users of every two categories. taken: [U, C] bool. Returns [C, C]."""
    counts = taken.astype(np.float64)
    both = counts.T @ counts
    sizes = np.diag(both)
    either = sizes[:, None] + sizes[None, :] - both
    distances: NDArray[np.float64] = 1.0 - both / np.maximum(either, 1.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def methods() -> tuple[Method, ...]:
    """The one row."""
    return (Explore(),)
