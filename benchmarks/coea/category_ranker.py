"""A small neural ranker of the categories outside C_s, by what a user clicked, long ago and lately.

h(x) is a two-layer network over what is known of a user: shares of the clicks per category, the same decayed with two
half-lives, C_s, profile values. A category a has an embedding e_a and the score f(x, a) = w · (h(x) ⊙ e_a) + b_a.
Trained by the cross-entropy of the next click's category among all outside C_s, at sampled moments of the training
clicks whose next category is outside C_s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from benchmarks.coea.code_digest import code_of
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.trial import Answers
from serendipity.groups.sequence import latest_distinct
from serendipity.novelty import Clicks
from serendipity.offline.logs.histories import Histories


class RankerConfig(BaseModel):
    """Size and training of the ranker."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dim: int = Field(32, ge=1)
    """d: features of the last layer."""
    hidden_dim: int = Field(64, ge=1)
    """Width of the hidden layer."""
    moments: int = Field(24, ge=1)
    """Moments trained on per user at most, drawn among those whose next category is outside C_s."""
    half_lives: tuple[float, float] = (5.0, 50.0)
    """Clicks after which a click counts half, in the two decayed shares."""
    window: int = Field(200, ge=1)
    """Latest clicks that features are taken from."""
    epochs: int = Field(6, ge=1)
    """Passes over the moments; the best on the validation episodes is kept."""
    batch: int = Field(512, ge=1)
    """Moments per step."""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW's, decaying to zero (cosine)."""
    weight_decay: float = Field(1e-2, ge=0)
    """AdamW's."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of the hidden layer."""


@dataclass(frozen=True)
class RankerTrial:
    """Answers: "validation" and "test", [n, C] float32, f of every category."""

    config: RankerConfig = field(default_factory=RankerConfig)
    name: str = "category ranker"

    @property
    def configuration(self) -> Mapping[str, object]:
        """The ranker's, and its code."""
        return {**self.config.model_dump(), "code": code_of(__name__)}

    def run(self, split: CategorySplit, seed: int) -> Answers:
        """Train, and ask."""
        fitted = fit_ranker(split, self.config, seed)
        return {"validation": fitted.scores(split.validation), "test": fitted.scores(split.test)}


class FeatureTable:
    """Lays out what the ranker is told; holds what does not change from user to user."""

    def __init__(self, histories: Histories, num_categories: int, config: RankerConfig) -> None:
        """Number the profile values that occur."""
        values = sorted({item for profile in histories.profiles for item in profile.items()})
        self._places = {value: place for place, value in enumerate(values)}
        self._num_categories = num_categories
        self._config = config

    @property
    def width(self) -> int:
        """Columns of a row."""
        return 4 * self._num_categories + len(self._places) + 1

    def row(self, categories: NDArray[np.int32], profile: dict[str, str]) -> NDArray[np.float32]:
        """Tell of a user whose clicks, oldest first, are of these categories. Returns [width] float32."""
        wide = self._num_categories + 1
        newest = categories[-self._config.window :][::-1]
        ages = np.arange(len(newest))
        weights = [np.ones(len(newest)), *(0.5 ** (ages / half_life) for half_life in self._config.half_lives)]
        shares = []
        for weight in weights:
            counts = np.bincount(newest, weights=weight, minlength=wide)[1:]
            # Square roots: the difference between none and one matters more than that between 50 and 60.
            shares.append(np.sqrt(counts / max(counts.sum(), 1e-9)))
        recent = np.zeros(self._num_categories)
        nothing = np.empty(len(newest), np.int64)
        for place, number in enumerate(latest_distinct(Clicks(nothing, newest, nothing))):
            recent[number - 1] = 1.0 / (1 + place)
        told = np.zeros(len(self._places) + 1)
        told[-1] = np.log1p(len(categories)) / 5
        for value in profile.items():
            if value in self._places:
                told[self._places[value]] = 1.0
        row: NDArray[np.float32] = np.concatenate([*shares, recent, told]).astype(np.float32)
        return row


@dataclass(frozen=True)
class Moments:
    """Moments trained on: features [m, width], categories that may be next [m, C] bool, the next's column [m]."""

    features: Tensor
    candidates: Tensor
    next: Tensor


class CategoryRanker(nn.Module):
    """The network: user → scores of all categories."""

    def __init__(self, width: int, num_categories: int, config: RankerConfig) -> None:
        """Build with fresh layers."""
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(width, config.hidden_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_dim, config.dim),
        )
        self.embeddings = nn.Parameter(torch.randn(num_categories, config.dim) * 0.1)
        self.weight = nn.Parameter(torch.ones(config.dim))
        self.bias = nn.Parameter(torch.zeros(num_categories))

    def forward(self, told: Tensor) -> Tensor:
        """f(x, a) for every category: [b, width] → [b, C]."""
        hidden: Tensor = self.network(told)
        return (hidden * self.weight) @ self.embeddings.T + self.bias


@dataclass(frozen=True)
class FittedRanker:
    """A trained ranker, what it is told with, and the moments it learned from."""

    model: CategoryRanker
    table: FeatureTable
    moments: Moments

    def told(self, episodes: Episodes) -> Tensor:
        """Features of the episodes' users: [n, width]."""
        histories = episodes.histories
        rows = [
            self.table.row(_categories(histories, user), histories.profiles[user]) for user in episodes.users.tolist()
        ]
        return torch.from_numpy(np.stack(rows))

    @torch.no_grad()
    def scores(self, episodes: Episodes) -> NDArray[np.float32]:
        """f for every category of every user of the episodes: [n, C]."""
        self.model.eval()
        scores: NDArray[np.float32] = self.model(self.told(episodes)).numpy()
        return scores


def fit_ranker(split: CategorySplit, config: RankerConfig, seed: int) -> FittedRanker:
    """Train on split.training; the epoch with the lowest cross-entropy on the validation episodes is kept."""
    rng = np.random.default_rng(seed)
    table = FeatureTable(split.training, split.num_categories, config)
    moments = _moments(split, table, config, rng)
    if not len(moments.next):
        raise ValueError("fit_ranker: found no moment whose next category is outside the latest ones, expected some")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CategoryRanker(table.width, split.num_categories, config)
        fitted = FittedRanker(model, table, moments)
        told = fitted.told(split.validation)
        optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        steps = config.epochs * -(-len(moments.next) // config.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, kept = float("inf"), {name: value.clone() for name, value in model.state_dict().items()}
        for _ in range(config.epochs):
            model.train()
            order = torch.from_numpy(rng.permutation(len(moments.next)))
            for index in torch.split(order, config.batch):
                logits = model(moments.features[index]).masked_fill(~moments.candidates[index], -torch.inf)
                loss = nn.functional.cross_entropy(logits, moments.next[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            loss_now = _validation_loss(model, told, split.validation)
            if loss_now < best:
                best, kept = loss_now, {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(kept)
    model.eval()
    return fitted


@torch.no_grad()
def _validation_loss(model: CategoryRanker, told: Tensor, episodes: Episodes) -> float:
    """Mean cross-entropy of the reachable targets, users alike."""
    model.eval()
    logits = model(told).masked_fill(torch.from_numpy(~episodes.candidates), -torch.inf)
    log_shares = torch.log_softmax(logits, dim=1).masked_fill(torch.from_numpy(~episodes.reachable), 0.0)
    counts = torch.from_numpy(episodes.reachable.sum(axis=1))
    chosen = counts > 0
    return float(-(log_shares.sum(dim=1)[chosen] / counts[chosen]).mean())


def _moments(split: CategorySplit, table: FeatureTable, config: RankerConfig, rng: np.random.Generator) -> Moments:
    histories = split.training
    told, candidates, following = [], [], []
    for user in range(len(histories)):
        categories = _categories(histories, user)
        found = 0
        for place in rng.permutation(np.arange(1, len(categories))).tolist():
            number = int(categories[place])
            nothing = np.empty(place, np.int64)
            recent = latest_distinct(Clicks(nothing, categories[:place][::-1], nothing))
            if not number or number in recent:
                continue
            allowed = np.ones(split.num_categories, np.bool_)
            allowed[np.asarray(recent, np.int64) - 1] = False
            told.append(table.row(categories[:place], histories.profiles[user]))
            candidates.append(allowed)
            following.append(number - 1)
            found += 1
            if found == config.moments:
                break
    return Moments(
        torch.from_numpy(np.stack(told) if told else np.empty((0, table.width), np.float32)),
        torch.from_numpy(np.stack(candidates) if candidates else np.empty((0, split.num_categories), np.bool_)),
        torch.tensor(following, dtype=torch.long),
    )


def _categories(histories: Histories, user: int) -> NDArray[np.int32]:
    return histories.categories[histories.offsets[user] : histories.offsets[user + 1]]
