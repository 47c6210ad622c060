"""Two-tower: ours (serendipity.offline.towers), its item scores pooled by category (cf. Yang et al. 2020).

The towers learn from moments at which all users are cut. Where the last click of every user is held out, users have no
common moment: their clocks are replaced by click numbers counted from the end, a day apart, so that a cut takes the
same number of clicks from every user. Interests are left out: no method compared is told of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.coea.item_scores import Pooling, category_scores, items_repeat, leave_out_clicked
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.towers.builder import feature_assembler, fit_towers, prepare
from serendipity.offline.towers.config import RowsConfig, TowersConfig, TrainerConfig
from serendipity.offline.towers.dual_tower import DualTower, item_content
from serendipity.offline.towers.factors import item_factors
from serendipity.offline.towers.interests import NO_NODE, InterestNodes
from serendipity.offline.towers.rows import RowsBuilder

_DAY = 86_400
_BATCH = 512
_POOLINGS: tuple[Pooling, ...] = ("logsumexp", "max")


def _small_towers() -> TowersConfig:
    # Two cuts and two epochs: a tenth of a build's time.
    return TowersConfig(
        item_interest=False,
        rows=RowsConfig(history_length=100, max_interests=1, num_cuts=2),
        trainer=TrainerConfig(max_epochs=2),
    )


@dataclass(frozen=True)
class TwoTower:
    """The row Two-tower; which pooling is used is chosen on validation."""

    towers: TowersConfig = field(default_factory=_small_towers)
    name: str = "Two-tower"
    family: Family = "exploitation"
    settings: tuple[Setting, ...] = ({"pooling": 0.0}, {"pooling": 1.0})
    """0: log Σ exp over a category's items, of log-odds; 1: the best item's."""

    @property
    def configuration(self) -> Mapping[str, object]:
        """The towers'."""
        return self.towers.model_dump(mode="json")

    def fit(self, split: CategorySplit, seed: int) -> FittedTwoTower:
        """Train the towers twice, as a build does, on the training clicks."""
        config = self.towers.model_copy(update={"seed": seed})
        aligned = split.kind == "leave-last-out"
        training = numbered_from_the_end(split.training) if aligned else split.training
        nodes = _no_interests(len(split.catalogue))
        until = int(training.times.max()) + 1
        prepared = prepare(training, split.catalogue, nodes, _nobodys, config, until)
        content = item_content(split.catalogue, nodes, interest=False)
        with tempfile.TemporaryDirectory() as checkpoints:
            trained = fit_towers(prepared, content, nodes, config, Path(checkpoints))
        return FittedTwoTower(split.catalogue, trained.towers, config, not items_repeat(split.training), aligned)


@dataclass(frozen=True)
class FittedTwoTower:
    """Trained towers. once: users never click an item twice; aligned: clocks count clicks from the end."""

    catalogue: Catalogue
    towers: DualTower
    config: TowersConfig
    once: bool
    aligned: bool

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Score the items by the user's row alone (U2I), and pool them."""
        pooling = _POOLINGS[int(setting["pooling"])]
        histories = numbered_from_the_end(episodes.histories) if self.aligned else episodes.histories
        nodes = _no_interests(len(self.catalogue))
        assembler = feature_assembler(histories, self.catalogue, nodes.vectors.shape[1], self.config)
        now = int(histories.times.max()) + 1
        (factors,) = item_factors(histories, len(self.catalogue), [now], self.config.factors, self.config.seed)
        moment = RowsBuilder(histories, self.catalogue, assembler, nodes, _nobodys).moment(factors, episodes.users)
        users = self.towers.user_vectors(moment, np.arange(len(moment)), nodes.vectors)[:, 0]
        items = self.towers.item_vectors(moment.items)
        found = []
        for start in range(0, len(users), _BATCH):
            rows = slice(start, start + _BATCH)
            scores = self._log_odds(users[rows] @ items.T)
            if self.once:
                leave_out_clicked(scores, episodes, rows)
            found.append(category_scores(scores, self.catalogue, pooling))
        return np.concatenate(found)

    def _log_odds(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            odds: NDArray[np.float32] = self.towers.log_odds(torch.from_numpy(scores)).numpy()
        return odds


def numbered_from_the_end(histories: Histories) -> Histories:
    """Give every user's i-th latest click the time −i days before a moment common to all."""
    counts = np.diff(histories.offsets)
    places = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], counts)
    end = (int(counts.max(initial=0)) + 1) * _DAY
    return replace(histories, times=(end - (np.repeat(counts, counts) - places) * _DAY).astype(np.int64))


def _no_interests(num_items: int) -> InterestNodes:
    return InterestNodes(np.zeros((1, 8), np.float32), np.full((num_items, 1), NO_NODE, np.int32), "none")


def _nobodys(time: int, users: Sequence[int], k: int) -> NDArray[np.int32]:  # noqa: ARG001 - as of a reasoner
    return np.full((len(users), k), NO_NODE, np.int32)


def methods() -> tuple[Method, ...]:
    """The one row."""
    return (TwoTower(),)
