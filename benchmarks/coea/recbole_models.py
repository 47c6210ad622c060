"""GRU4Rec, SASRec and BERT4Rec of the RecBole library, trained by a small loop of our own.

RecBole's model classes are used as they are. Its data set, trainer and configuration files are not: they read files of
a format and a split of their own. A model asks its configuration for values by name, its data set for the number of
items, and a batch for tensors by name; plain mappings answer all three. RecBole predicts one click per window of
GRU4Rec and SASRec; here a window predicts at several places, as SASRec's authors do, which a causal model may: the same
loss at a fraction of the cost.

arXiv 1511.06939 (GRU4Rec), 1808.09781 (SASRec), 1904.06690 (BERT4Rec).
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.coea.item_sequences import PADDING, ItemSequences
from serendipity.offline.towers.threads import limited_threads

Architecture = Literal["GRU4Rec", "SASRec", "BERT4Rec"]

RECALL_AT = 10
"""K of the recall that is reported."""

_ITEM, _SEQUENCE, _LENGTH = "item_id", "item_id_list", "item_length"
_MASKED, _MASKED_ITEMS, _MASKED_PLACES, _NEGATIVE_ITEMS = "masked", "masked_items", "masked_places", "negative_items"
_IGNORED_TARGET = -100  # of torch's cross entropy
_BATCH = 256
_WARM_UP = 0.1


class SequentialConfig(BaseModel):
    """Size and training of a sequential model. What it costs does not grow with the length of the histories."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    window: Annotated[int, Field(ge=2)] = 50
    """Latest clicks a model reads."""
    hidden_size: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """d, of items and layers alike."""
    inner_size: Annotated[int, Field(ge=1)] = 64
    """Of the attention layers' feed-forward part; d, as in SASRec's code."""
    num_layers: Annotated[int, Field(ge=1)] = 2
    num_heads: Annotated[int, Field(ge=1)] = 2
    """Of the attention; GRU4Rec has none."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    targets: Annotated[int, Field(ge=1)] = 10
    """Clicks of a window that are predicted, drawn anew every time: next clicks for GRU4Rec and SASRec, masked ones for
    BERT4Rec (a share of targets / window of shorter ones)."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Windows of a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """The highest: it rises over the first tenth of the steps and falls to zero along a half cosine."""
    steps: Annotated[int, Field(ge=1)] = 800
    """Steps at most."""
    check_every: Annotated[int, Field(ge=1)] = 200
    """Steps from one look at held-out clicks to the next."""
    patience: Annotated[int, Field(ge=1)] = 3
    """Looks without a better log-probability of the held-out clicks after which training ends."""
    held_out: Annotated[int, Field(ge=1)] = 1_000
    """Users at most whose last click is held out to tell when to stop."""
    threads: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class SequentialReport:
    """What training came to.

    log_probability: mean of the held-out clicks', of the weights that were kept; recall: their recall@10.
    popularity_recall: of the most clicked items for all. steps: taken. seconds: of processor time.
    """

    log_probability: float
    recall: float
    popularity_recall: float
    steps: int
    seconds: float


class SequentialModel:
    """A sequential model over items 1 … num_items."""

    def __init__(self, architecture: Architecture, num_items: int, config: SequentialConfig, seed: int) -> None:
        self.report: SequentialReport | None = None
        self._masks = architecture == "BERT4Rec"
        self._num_items = num_items
        self._config = config
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = _make(architecture, num_items, config)

    def fit(self, sequences: ItemSequences) -> SequentialReport:
        """Learn from the users' sequences, the last clicks of some held out: weights that give them most are kept."""
        config, rng = self._config, np.random.default_rng(self._seed)
        since = time.process_time()
        training, contexts, answers = sequences.with_last_held_out(config.held_out, rng)
        counts = np.bincount(training.items, minlength=self._num_items + 1).astype(np.float32)
        popularity = _recall(np.tile(counts, (len(answers), 1)), answers)
        ends = training.ends_after_another()
        best, recall, kept, worse, step = -np.inf, 0.0, copy.deepcopy(self._model.state_dict()), 0, 0
        optimizer = torch.optim.Adam(self._model.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=config.steps + 1, pct_start=_WARM_UP
        )
        batch_of = self._masked_batch if self._masks else self._causal_batch
        with limited_threads(config.threads), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            while len(ends) and step < config.steps and worse < config.patience:
                self._model.train()
                batch = batch_of(training, rng.choice(ends, config.batch_size), rng)
                optimizer.zero_grad()
                self._model.calculate_loss(batch).backward()
                optimizer.step()
                schedule.step()
                step += 1
                if step % config.check_every == 0 or step == config.steps:
                    likely, recalled = self._on_held_out(contexts, answers)
                    # Without anything held out the latest weights are kept.
                    better = likely > best or not len(answers)
                    worse = 0 if better else worse + 1
                    if better:
                        best, recall, kept = likely, recalled, copy.deepcopy(self._model.state_dict())
        self._model.load_state_dict(kept)
        self.report = SequentialReport(best, recall, popularity, step, time.process_time() - since)
        return self.report

    def log_probabilities(self, sequences: ItemSequences) -> NDArray[np.float32]:
        """Give log p(next item | a user's latest clicks): [U, num_items + 1], −inf for PADDING.

        Users without clicks are not to be asked for: raises ValueError.
        """
        lengths = np.diff(sequences.offsets)
        if not lengths.all():
            raise ValueError(f"log_probabilities: found no clicks of user {int(lengths.argmin())}, expected at least 1")
        found = np.empty((len(lengths), self._num_items + 1), np.float32)
        self._model.eval()
        with limited_threads(self._config.threads), torch.inference_mode():
            for start in range(0, len(found), _BATCH):
                users = slice(start, min(start + _BATCH, len(found)))
                windows, filled = sequences.windows(sequences.offsets[1:][users], self._config.window)
                scores = self._model.full_sort_predict(
                    {_SEQUENCE: torch.from_numpy(windows), _LENGTH: torch.from_numpy(filled)}
                )
                scores[:, PADDING] = -torch.inf
                found[users] = torch.log_softmax(scores, dim=1).numpy()
        return found

    def _on_held_out(self, contexts: ItemSequences, answers: NDArray[np.int64]) -> tuple[float, float]:
        if not len(answers):
            return 0.0, 0.0
        scores = self.log_probabilities(contexts)
        return float(scores[np.arange(len(answers)), answers].mean()), _recall(scores, answers)

    def _causal_batch(
        self, sequences: ItemSequences, ends: NDArray[np.int64], rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        windows, filled = sequences.windows(ends, self._config.window + 1)
        places, valid = _draw(filled - 1, np.minimum(filled - 1, self._config.targets), self._config.targets, rng)
        # A prefix of length l is followed by the item at l.
        following = np.where(valid, np.take_along_axis(windows, places + 1, axis=1), _IGNORED_TARGET)
        return {
            _SEQUENCE: torch.from_numpy(windows[:, :-1].copy()),
            _LENGTH: torch.from_numpy(places + 1),
            _ITEM: torch.from_numpy(following.reshape(-1)),
        }

    def _masked_batch(
        self, sequences: ItemSequences, ends: NDArray[np.int64], rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        windows, filled = sequences.windows(ends, self._config.window)
        most = self._config.targets
        counts = np.ceil((filled - 1) * most / self._config.window).astype(np.int64)
        # Place 0 is never masked: RecBole's loss takes it for padding. The last is, in half of the windows: it is what
        # the model is asked for.
        places, valid = _draw(filled - 1, counts, most, rng, last_first=rng.random(len(ends)) < 0.5)
        places = np.where(valid, places + 1, 0)
        answers = np.take_along_axis(windows, places, axis=1)
        masked = windows.copy()
        rows, columns = np.nonzero(valid)
        masked[rows, places[rows, columns]] = self._num_items + 1
        return {
            _MASKED: torch.from_numpy(masked),
            _MASKED_ITEMS: torch.from_numpy(answers),
            _MASKED_PLACES: torch.from_numpy(places),
            _NEGATIVE_ITEMS: torch.from_numpy(answers),
        }


def _draw(
    choices: NDArray[np.int64],
    counts: NDArray[np.int64],
    most: int,
    rng: np.random.Generator,
    last_first: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw counts[i] of 0 … choices[i] − 1 without replacement: ([n, most], which of them are drawn)."""
    keys = rng.random((len(choices), max(int(choices.max()), most)))
    keys[np.arange(keys.shape[1]) >= choices[:, None]] = 2.0
    if last_first is not None:
        keys[np.flatnonzero(last_first), choices[last_first] - 1] = -1.0
    places = np.argsort(keys, axis=1)[:, :most].astype(np.int64)
    valid = np.arange(most) < counts[:, None]
    return np.where(valid, places, 0), valid


def _recall(scores: NDArray[np.float32], answers: NDArray[np.int64]) -> float:
    """Recall@10 of one item each; scores: [n, num_items + 1]. Items clicked before are not left out."""
    own = scores[np.arange(len(answers)), answers]
    return float(((scores > own[:, None]).sum(axis=1) < RECALL_AT).mean()) if len(answers) else 0.0


def _make(architecture: Architecture, num_items: int, config: SequentialConfig) -> Any:
    def gather_indexes(_: Any, output: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        # [B, L, d] at places [B] or [B, P] → [B · P, d], where RecBole's takes one place a row.
        index = places.reshape(len(output), -1, 1).expand(-1, -1, output.shape[-1])
        return output.gather(1, index).flatten(0, 1)

    library = _library(architecture)
    settings = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": _ITEM,
        "LIST_SUFFIX": _SEQUENCE.removeprefix(_ITEM),
        "ITEM_LIST_LENGTH_FIELD": _LENGTH,
        "NEG_PREFIX": "negative_",
        "MAX_ITEM_LIST_LENGTH": config.window,
        "MASK_ITEM_SEQ": _MASKED,
        "POS_ITEMS": _MASKED_ITEMS,
        "NEG_ITEMS": _NEGATIVE_ITEMS,
        "MASK_INDEX": _MASKED_PLACES,
        "device": torch.device("cpu"),
        "loss_type": "CE",
        "embedding_size": config.hidden_size,
        "hidden_size": config.hidden_size,
        "inner_size": config.inner_size,
        "num_layers": config.num_layers,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "dropout_prob": config.dropout,
        "hidden_dropout_prob": config.dropout,
        "attn_dropout_prob": config.dropout,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "mask_ratio": config.targets / config.window,
    }
    return type(architecture, (library,), {"gather_indexes": gather_indexes})(settings, _NumItems(num_items + 1))


@dataclass(frozen=True)
class _NumItems:
    """All that a model asks a RecBole data set: how many values a field has, PADDING included."""

    number: int

    def num(self, field: str) -> int:  # noqa: ARG002
        return self.number


def _library(architecture: Architecture) -> type[Any]:
    # Importing RecBole's models turns torch's anomaly detection on for the whole process (sine.py), which makes every
    # backward pass a third slower; leaving the block puts it back.
    with torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled()):
        from recbole.model import sequential_recommender

    found: type[Any] = getattr(sequential_recommender, architecture)
    return found
