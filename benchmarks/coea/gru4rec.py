"""GRU4Rec (arXiv 1511.06939): the next item by a recurrent network, trained until held-out clicks say stop.

A list's categories are scored by the log of the sum of their items' probabilities. Trained on stretches of the
histories, one click after another, by the cross-entropy of the next item among as many drawn as are worth their time
(1706.03847: drawn by clicks, here shared by a batch and corrected for how likely each is drawn).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from benchmarks.coea.code_digest import code_of
from benchmarks.coea.item_scores import category_scores, items_repeat, leave_out_clicked
from benchmarks.coea.item_sequences import PADDING, ItemSequences, ItemVocabulary
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.trial import Answers

logger = logging.getLogger(__name__)

_BATCH = 512


class Gru4RecConfig(BaseModel):
    """Size and training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    window: int = Field(100, ge=2)
    """Latest clicks that are read."""
    dim: int = Field(64, ge=1)
    """Of items and of the recurrent layer."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of items and states."""
    batch: int = Field(64, ge=1)
    """Stretches of a step."""
    negatives: int = Field(256, ge=1)
    """Items drawn per step."""
    learning_rate: float = Field(4e-3, gt=0)
    """Adam's; halved at every look that is no better than the best before it."""
    check_every: int = Field(300, ge=1)
    """Steps from one look at held-out clicks to the next."""
    patience: int = Field(3, ge=1)
    """Looks in a row without a better log-probability of the held-out clicks after which training ends."""
    max_steps: int = Field(20_000, ge=1)
    """Where it ends without that."""
    held_out: int = Field(1_000, ge=1)
    """Users at most whose last training click is held out to tell when to stop."""
    max_items: int = Field(10_000, ge=1)
    """Most clicked items that are told apart; the rest of a category is one."""


@dataclass(frozen=True)
class Gru4RecTrial:
    """Answers: "validation" and "test", [n, C] float32, log-probabilities of the categories, −inf where nothing of one
    is left. Where nobody clicks an item twice, clicked items are left out."""

    config: Gru4RecConfig = field(default_factory=Gru4RecConfig)
    name: str = "GRU4Rec"

    @property
    def configuration(self) -> Mapping[str, object]:
        """The network's, and its code."""
        return {**self.config.model_dump(), "code": code_of(__name__)}

    def run(self, split: CategorySplit, seed: int) -> Answers:
        """Train, and ask about the items of the catalogue."""
        vocabulary = ItemVocabulary.of(split.training, split.catalogue, self.config.max_items)
        model = train(vocabulary.sequences(split.training), vocabulary.size, self.config, seed)
        once = not items_repeat(split.training)
        return {
            name: self._scores(model, vocabulary, split, episodes, once)
            for name, episodes in (("validation", split.validation), ("test", split.test))
        }

    def _scores(
        self, model: Gru4Rec, vocabulary: ItemVocabulary, split: CategorySplit, episodes: Episodes, once: bool
    ) -> NDArray[np.float32]:
        sequences = vocabulary.sequences(episodes.histories)
        found = []
        for start in range(0, len(episodes), _BATCH):
            rows = slice(start, start + _BATCH)
            items = vocabulary.item_scores(log_probabilities(model, sequences.of(episodes.users[rows]), self.config))
            if once:
                leave_out_clicked(items, episodes, rows)
            found.append(category_scores(items, split.catalogue))
        return np.concatenate(found)


class Gru4Rec(nn.Module):
    """The network over items 1 … num_items; input and output share the items' vectors."""

    def __init__(self, num_items: int, config: Gru4RecConfig) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items + 1, config.dim, padding_idx=PADDING)
        nn.init.normal_(self.items.weight, std=config.dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        self.recurrent = nn.GRU(config.dim, config.dim, batch_first=True)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, windows: Tensor) -> Tensor:
        """Read [b, n] item numbers, padding behind: the state after each, [b, n, d]."""
        states, _ = self.recurrent(self.dropout(self.items(windows)))
        found: Tensor = self.out(self.dropout(states))
        return found

    def logits(self, states: Tensor) -> Tensor:
        """Score every item: [b, d] → [b, num_items + 1], −inf for PADDING."""
        scores = states @ self.items.weight.T + self.bias
        scores[:, PADDING] = -torch.inf
        return scores


def train(
    sequences: ItemSequences,
    num_items: int,
    config: Gru4RecConfig,
    seed: int,
    on_look: Callable[[float], object] = lambda _: None,
) -> Gru4Rec:
    """Train until the last clicks of some users, held out, get no likelier; the weights of the best look are kept.

    on_look: told the mean log-probability of the held-out clicks.
    """
    rng = np.random.default_rng(seed)
    training, contexts, answers = sequences.with_last_held_out(config.held_out, rng)
    counts = np.bincount(training.items, minlength=num_items + 1).astype(np.float64)
    drawn = torch.from_numpy(counts / max(counts.sum(), 1))
    ends = _ends(training, config.window + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Gru4Rec(num_items, config)
        with torch.no_grad():
            model.bias.copy_(torch.from_numpy(np.log1p(counts) - np.log1p(counts).mean()))
        optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
        best, kept, worse = -np.inf, copy.deepcopy(model.state_dict()), 0
        for step in range(1, config.max_steps + 1):
            model.train()
            windows, _ = training.windows(rng.choice(ends, config.batch), config.window + 1)
            loss = _loss(model, torch.from_numpy(windows), drawn, config.negatives)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % config.check_every == 0:
                scores = log_probabilities(model, contexts, config)
                likely = float(scores[np.arange(len(answers)), answers].mean())
                logger.info("GRU4Rec, seed %d, step %d: held-out log-probability %.4f", seed, step, likely)
                on_look(likely)
                if likely > best:
                    best, kept, worse = likely, copy.deepcopy(model.state_dict()), 0
                else:
                    worse += 1
                    for group in optimizer.param_groups:
                        group["lr"] /= 2
                if worse == config.patience:
                    break
        model.load_state_dict(kept)
    return model.eval()


@torch.no_grad()
def log_probabilities(model: Gru4Rec, sequences: ItemSequences, config: Gru4RecConfig) -> NDArray[np.float32]:
    """Give log p(next item | latest clicks) of every user, [U, num_items + 1], −inf for PADDING.

    A user without clicks that the network knows gets what it says after none.
    """
    model.eval()
    windows, filled = sequences.windows(sequences.offsets[1:], config.window)
    states = model(torch.from_numpy(windows))
    last = states[torch.arange(len(states)), torch.from_numpy(np.maximum(filled, 1)) - 1]
    found: NDArray[np.float32] = torch.log_softmax(model.logits(last), dim=1).numpy()
    return found


def _ends(sequences: ItemSequences, length: int) -> NDArray[np.int64]:
    """Places behind the stretches that histories are cut into, from their ends; of two clicks at least."""
    found = [
        np.arange(int(end), int(start) + 1, -(length - 1), dtype=np.int64)
        for start, end in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
        if end - start > 1
    ]
    return np.concatenate(found)


def _loss(model: Gru4Rec, windows: Tensor, drawn: Tensor, negatives: int) -> Tensor:
    """Cross-entropy of every next click among itself and the items drawn, corrected for how likely each is drawn."""
    states, targets = model(windows[:, :-1]), windows[:, 1:]
    asked = targets != PADDING
    states, targets = states[asked], targets[asked]
    others = torch.multinomial(drawn, negatives, replacement=True)
    often = (drawn * negatives).clamp(min=1e-12).log().float()
    against = states @ model.items(others).T + (model.bias[others] - often[others])
    against = against.masked_fill(others == targets[:, None], -torch.inf)
    own = (states * model.items(targets)).sum(1) + model.bias[targets] - often[targets]
    loss: Tensor = (torch.logaddexp(own, against.logsumexp(1)) - own).mean()
    return loss
