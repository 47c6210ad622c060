"""GRU4Rec, SASRec and BERT4Rec, their item probabilities pooled by category."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.item_scores import Pooling, category_scores, items_repeat, leave_out_clicked
from benchmarks.coea.item_sequences import ItemVocabulary
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting
from benchmarks.coea.recbole_models import Architecture, SequentialConfig, SequentialModel
from serendipity.offline.logs.catalogue import Catalogue

logger = logging.getLogger(__name__)

_BATCH = 512
_POOLINGS: tuple[Pooling, ...] = ("logsumexp", "max")


@dataclass(frozen=True)
class Sequential:
    """A row of the three; which pooling is used is chosen on validation.

    max_items: most clicked items that are told apart; the rest of a category is one (ItemVocabulary).
    """

    name: Architecture
    config: SequentialConfig = field(default_factory=SequentialConfig)
    max_items: int = 10_000
    family: Family = "exploitation"
    settings: tuple[Setting, ...] = ({"pooling": 0.0}, {"pooling": 1.0})
    """0: log of the sum of its items' probabilities; 1: the likeliest item's."""

    @property
    def configuration(self) -> Mapping[str, object]:
        """The model's."""
        return {**self.config.model_dump(exclude={"threads"}), "max_items": self.max_items}

    def fit(self, split: CategorySplit, seed: int) -> FittedSequential:
        """Train on the training clicks; some users' last of them are held out to stop by."""
        vocabulary = ItemVocabulary.of(split.training, split.catalogue, self.max_items)
        sequences = vocabulary.sequences(split.training)
        model = SequentialModel(self.name, vocabulary.size, self.config, seed)
        report = model.fit(sequences)
        logger.info("%s, seed %d: %s", self.name, seed, report)
        clicks = np.bincount(sequences.items, minlength=vocabulary.size + 1).astype(np.float64)
        return FittedSequential(split.catalogue, vocabulary, model, clicks, not items_repeat(split.training))


@dataclass(frozen=True)
class FittedSequential:
    """clicks: [size + 1], of each number. once: users never click an item twice."""

    catalogue: Catalogue
    vocabulary: ItemVocabulary
    model: SequentialModel
    clicks: NDArray[np.float64]
    once: bool

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Pool the items' log-probabilities; those without history get the items' shares of all clicks."""
        pooling = _POOLINGS[int(setting["pooling"])]
        sequences = self.vocabulary.sequences(episodes.histories).of(episodes.users)
        found = np.empty((len(episodes), len(self.catalogue.categories)), np.float32)
        for start in range(0, len(found), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(found)))
            batch = sequences.of(rows)
            known = np.flatnonzero(np.diff(batch.offsets))
            likely = np.tile(self._shares, (len(rows), 1))
            likely[known] = self.model.log_probabilities(batch.of(known))
            scores = self.vocabulary.item_scores(likely)
            if self.once:
                leave_out_clicked(scores, episodes, slice(start, start + _BATCH))
            found[rows] = category_scores(scores, self.catalogue, pooling)
        return found

    @cached_property
    def _shares(self) -> NDArray[np.float32]:
        # One more click each, so that an item nobody clicked is unlikely and not impossible.
        smoothed = self.clicks + 1
        shares: NDArray[np.float32] = np.log(smoothed / smoothed.sum()).astype(np.float32)
        return shares


def methods() -> tuple[Method, ...]:
    """The three rows. What suits one architecture on MovieLens-1M in 90 s of one core does not suit another."""
    return (
        Sequential("GRU4Rec", SequentialConfig(learning_rate=8e-3, steps=1_000)),
        Sequential("SASRec", SequentialConfig(learning_rate=2e-3, dropout=0.1, steps=1_000)),
        Sequential("BERT4Rec", SequentialConfig(learning_rate=2e-3, dropout=0.0, steps=850)),
    )
