"""NLB: Thompson sampling on the last layer of a neural ranker (Su et al., WSDM 2024, arXiv 2305.07764, section 5).

The network's last-layer features φ(x, a) are taken as given and a Bayesian linear regression is laid over them: with
precision Λ = λI + Σ φφᵀ over the pairs observed in training, a score is drawn from N(f(x, a), α² φᵀΛ⁻¹φ). φᵀΛ⁻¹φ comes
from the Cholesky factor of Λ. Observed are the categories clicked and as many of those that were not, per moment.
α is the trade-off: 0 is the ranker itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.coea.category_ranker import FittedRanker, RankerConfig, fit_ranker
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting

_RIDGE = 1.0
"""λ."""

_BATCH = 4096


@dataclass(frozen=True)
class NeuralLinearBandit:
    """The row NLB."""

    ranker: RankerConfig = field(default_factory=RankerConfig)
    name: str = "NLB"
    family: Family = "exploration"
    settings: tuple[Setting, ...] = field(
        default_factory=lambda: tuple({"alpha": alpha} for alpha in (0.0, 1.0, 3.0, 10.0, 20.0, 40.0, 80.0, 160.0))
    )

    @property
    def configuration(self) -> Mapping[str, object]:
        """The ranker's."""
        return self.ranker.model_dump()

    def fit(self, split: CategorySplit, seed: int) -> FittedNeuralLinearBandit:
        """Train the ranker and observe the training pairs."""
        ranker = fit_ranker(split, self.ranker, seed)
        return FittedNeuralLinearBandit(ranker, _precision(ranker, seed), seed)


@dataclass(frozen=True)
class FittedNeuralLinearBandit:
    """cholesky: [d, d], lower, of Λ."""

    ranker: FittedRanker
    cholesky: Tensor
    seed: int

    @torch.no_grad()
    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Draw a score for every pair."""
        model, told = self.ranker.model, self.ranker.told(episodes)
        rng = np.random.default_rng([self.seed, len(episodes.histories.items)])
        found = []
        for part in torch.split(told, _BATCH):
            features = model.features(part)
            solved = torch.linalg.solve_triangular(self.cholesky, features.flatten(0, 1).T, upper=False)
            deviation = solved.square().sum(dim=0).sqrt().view(features.shape[:2]).numpy()
            noise = rng.standard_normal(deviation.shape)
            found.append(model(part).numpy() + setting["alpha"] * deviation * noise)
        drawn: NDArray[np.float32] = np.concatenate(found).astype(np.float32)
        return drawn


@torch.no_grad()
def _precision(ranker: FittedRanker, seed: int) -> Tensor:
    """Cholesky factor of Λ over the clicked category of each moment and one other candidate."""
    generator = torch.Generator().manual_seed(seed)
    moments, model = ranker.moments, ranker.model
    precision = torch.eye(model.weight.shape[0]) * _RIDGE
    for start in range(0, len(moments.next), _BATCH):
        rows = slice(start, start + _BATCH)
        others = moments.candidates[rows].float()
        others[torch.arange(len(others)), moments.next[rows]] = 1e-9
        drawn = torch.multinomial(others, 1, generator=generator).squeeze(1)
        hidden = model.network(moments.features[rows])
        for columns in (moments.next[rows], drawn):
            features = hidden * model.embeddings[columns]
            precision += features.T @ features
    factor: Tensor = torch.linalg.cholesky(precision)
    return factor


def methods() -> tuple[Method, ...]:
    """The one row."""
    return (NeuralLinearBandit(),)
