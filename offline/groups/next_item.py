"""Trains the causal self-attention network to tell, after every kept click, which item comes next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from serendipity.offline.finite import require_finite, require_finite_weights
from serendipity.offline.groups.config import InterestConfig
from serendipity.offline.groups.interest_encoder import PADDING, RARE, InterestEncoder, Vocabulary, interests_after
from serendipity.offline.groups.kept_histories import KeptHistories, of_like_length

VALIDATED_AT = 20
"""K of the hit rate the interest is judged by."""

_NEGATIVE_POWER = 0.75
"""An item is drawn as a negative with probability ∝ clicks^this."""

_NUM_NEGATIVES = 256
"""Items the next one is told from, drawn per batch from the popular; all of them where there are no more."""

_CLIP = 1.0
"""Largest norm of a gradient."""


@dataclass(frozen=True)
class NextItemReport:
    """What training on next items came to.

    hit_rate, popularity_hit_rate: share of validation users whose held-out last kept click is
    among the VALIDATED_AT items the network, or the number of clicks alone, puts first; NaN without such users.
    """

    hit_rate: float
    popularity_hit_rate: float
    validation_users: int


def make_vocabulary(kept: KeptHistories, item_categories: NDArray[np.int32], min_item_clicks: int) -> Vocabulary:
    """Give every item with enough kept clicks a token. item_categories: [n] int32, by catalogue row."""
    clicks = np.bincount(kept.items, minlength=len(item_categories) + 1)
    frequent = np.flatnonzero(clicks[1:] >= min_item_clicks) + 1
    tokens = np.full(len(item_categories) + 1, RARE, np.int64)
    tokens[0] = PADDING
    tokens[frequent] = np.arange(len(frequent)) + RARE + 1
    return Vocabulary(
        tokens=torch.from_numpy(tokens),
        categories=torch.from_numpy(np.concatenate([np.zeros(1), item_categories]).astype(np.int64)),
        num_tokens=len(frequent) + RARE + 1,
        num_categories=int(item_categories.max(initial=0)) + 1,
    )


class NextItemTrainer:
    """Trains an InterestEncoder with sampled softmax over the items that have an embedding of their own.

    The item's score is its vector times the interest plus a bias of its own: how often it is clicked is the bias's to
    tell, not the interest's.
    """

    def __init__(self, encoder: InterestEncoder, kept: KeptHistories, config: InterestConfig, seed: int) -> None:
        self._encoder, self._kept, self._config = encoder, kept, config
        self._random = np.random.default_rng(seed)
        lengths = kept.lengths
        eligible = np.flatnonzero(lengths >= 2)
        chosen = self._random.permutation(eligible)[: min(config.validation_users, len(eligible) // 2)]
        self._validation = np.sort(chosen)
        self._learned = lengths.copy()
        self._learned[self._validation] -= 1
        tokens = encoder.tokens[torch.from_numpy(kept.items)]
        self._counts = torch.bincount(tokens, minlength=encoder.token_embedding.num_embeddings).double()
        self._counts[: RARE + 1] = 0
        rows = torch.zeros(len(self._counts), dtype=torch.long)
        rows[encoder.tokens] = torch.arange(len(encoder.tokens))
        self._token_categories = encoder.categories[rows]
        popularity = (self._counts + 1).log().float()
        self._bias = nn.Parameter(popularity - popularity.mean())
        weights = self._counts.pow(_NEGATIVE_POWER)
        self._drawn = weights / weights.sum().clamp(min=1)
        self._generator = torch.Generator().manual_seed(seed)

    def train(self, progress: Progress | None = None) -> NextItemReport:
        """Train for `num_epochs` and validate. Raises DivergedError."""
        config = self._config
        taken = np.minimum(self._learned, config.sequence_length)
        batches = of_like_length(taken, config.batch_clicks)
        epochs = num_epochs(config, len(batches)) if int((self._counts > 0).sum()) > 1 else 0
        num_steps = max(1, len(batches) * epochs)
        parameters = [*self._encoder.parameters(), self._bias]
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, num_steps))
        task = progress.add_task("long-term interests", total=epochs) if progress else None
        self._encoder.train()
        for epoch in range(1, epochs + 1):
            for step, number in enumerate(self._random.permutation(len(batches)), 1):
                loss = self._step(batches[number], optimizer, parameters)
                require_finite(f"long-term interests, epoch {epoch}, step {step}", loss=loss)
                schedule.step()
            if progress and task is not None:
                progress.advance(task)
        self._encoder.eval()
        require_finite_weights("long-term interests", self._encoder)
        return NextItemReport(*self._validate(), len(self._validation))

    def _step(
        self, users: NDArray[np.int64], optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> float:
        # At random where there are more clicks than fit.
        taken = np.minimum(self._learned[users], self._config.sequence_length)
        starts = self._random.integers(0, self._learned[users] - taken + 1)
        stretches = self._kept.stretches(users, starts, taken)
        items = torch.from_numpy(stretches.items)
        interests = self._encoder.interests(items[:, :-1], torch.from_numpy(stretches.profiles))
        targets, _ = self._encoder.identify(items)
        asked = targets > RARE
        if not bool(asked.any()):
            return 0.0
        loss = self._loss(interests[asked], targets[asked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()
        return loss.item()

    def _loss(self, interests: Tensor, targets: Tensor) -> Tensor:
        """Sampled softmax: [n, d], [n] → mean cross entropy, corrected for how likely each item is drawn."""
        if int((self._drawn > 0).sum()) <= _NUM_NEGATIVES:
            candidates = self._drawn.nonzero().squeeze(1)
            return F.cross_entropy(self._scores(interests, candidates), torch.searchsorted(candidates, targets))
        drawn = torch.multinomial(self._drawn, _NUM_NEGATIVES, replacement=True, generator=self._generator)
        often = (self._drawn * _NUM_NEGATIVES).float().log()
        negatives = self._scores(interests, drawn, often)
        negatives = negatives.masked_fill(drawn == targets.unsqueeze(1), float("-inf"))
        vectors = self._encoder.item_vectors(targets, self._token_categories[targets])
        positives = (interests * vectors).sum(1) + self._bias[targets] - often[targets]
        return (torch.logaddexp(positives, negatives.logsumexp(1)) - positives).mean()

    def _scores(self, interests: Tensor, tokens: Tensor, correction: Tensor | None = None) -> Tensor:
        vectors = self._encoder.item_vectors(tokens, self._token_categories[tokens])
        bias = self._bias[tokens] if correction is None else self._bias[tokens] - correction[tokens]
        return torch.addmm(bias, interests, vectors.T)

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        """Ask for the held-out clicks, among all items with a token."""
        if not len(self._validation):
            return math.nan, math.nan
        candidates = torch.arange(RARE + 1, len(self._counts))
        popular = torch.argsort(self._counts[candidates], descending=True, stable=True)[:VALIDATED_AT] + RARE + 1
        hits = popular_hits = 0
        ends, most = self._learned[self._validation], self._config.sequence_length
        lengths = np.minimum(ends, most)
        for places in of_like_length(lengths, self._config.batch_clicks):
            users = self._validation[places]
            stretches = self._kept.stretches(users, ends[places] - lengths[places], lengths[places])
            held_out = self._kept.items[self._kept.offsets[users] + ends[places]]
            target, _ = self._encoder.identify(torch.from_numpy(held_out))
            interests = interests_after(self._encoder, stretches)
            best = self._scores(interests, candidates).topk(min(VALIDATED_AT, len(candidates))).indices + RARE + 1
            hits += int((best == target.unsqueeze(1)).sum())
            popular_hits += int((popular == target.unsqueeze(1)).sum())
        return hits / len(self._validation), popular_hits / len(self._validation)


def num_epochs(config: InterestConfig, num_batches: int) -> int:
    """Passes over so many batches: config.epochs, or up to twice as many where that is fewer than min_steps."""
    wanted = -(-config.min_steps // max(1, num_batches))
    return max(config.epochs, min(wanted, 2 * config.epochs))


def _rate(step: int, num_steps: int) -> float:
    """Share of the highest learning rate: a rise over a tenth of the steps, then a cosine to zero."""
    rise = max(1, num_steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))
