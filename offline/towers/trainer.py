"""Training: epochs over the rows of several cuts, with early stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from serendipity.offline.finite import require_finite, require_finite_weights
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.towers.batches import Batch, BatchSampler, plan_epoch
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.dual_tower import DualTower
from serendipity.offline.towers.interests import InterestNodes
from serendipity.offline.towers.losses import click_loss, interest_contrast, user_item_contrast
from serendipity.offline.towers.rows import TrainingRows

logger = logging.getLogger(__name__)

_COLD_SHARE = 0.02
"""Share of rows shown without history, so that a user nothing is known of gets sensible vectors."""

_TEMPERATURE = 0.1
"""τ of the contrastive losses."""


def train(
    towers: DualTower,
    rows: Sequence[TrainingRows],
    item_categories: NDArray[np.int32],
    nodes: InterestNodes,
    config: TowersConfig,
    *,
    validate: Callable[[DualTower], float] | None,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Train in place, leave the towers as they were at their best epoch, and return which that was (from 1).

    validate: score of the towers as they are, higher is better; training stops after `patience` epochs without a
    better one. Without it, `epochs` epochs are run, on the learning rates of the first of max_epochs, and the last is
    the best. Raises DivergedError.
    """
    trainer = config.trainer
    samplers = [
        BatchSampler(
            part,
            item_categories,
            nodes,
            towers.user,
            config.loss,
            min_item_users=config.rows.min_item_users,
            cold_share=_COLD_SHARE,
        )
        for part in rows
    ]
    steps = sum(-(-len(sampler.trainable_rows) // trainer.batch_users) for sampler in samplers)
    if not steps:
        raise LogsError(
            f"towers: found no later click on an item that {config.rows.min_item_users} users had clicked before, "
            "expected some: longer logs, or a smaller towers.rows.min_item_users"
        )
    last = trainer.max_epochs if epochs is None else epochs
    optimizer = torch.optim.AdamW(towers.parameters(), lr=trainer.learning_rate)
    towers.start_from(sum(sampler.num_positives for sampler in samplers) / sum(s.num_pairs for s in samplers))
    number = best_epoch = 0
    best_score: float | None = None
    best = _copy(towers)
    items = [_ItemTensors.of(part) for part in rows]
    task = progress.add_task("towers", total=last * steps) if progress else None
    while number < last and not (validate and number - best_epoch >= trainer.patience):
        number += 1
        rng = np.random.default_rng([config.seed, number])
        clicks = contrasts = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            towers.train()
            for step, (cut, index) in enumerate(plan_epoch(samplers, trainer.batch_users, rng)):
                share = ((number - 1) * steps + step) / (trainer.max_epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = trainer.learning_rate * learning_rate_share(share)
                batch = samplers[cut].draw(index, rng)
                click, contrast = _losses(towers, batch, items[cut], config)
                found = float(click.detach()), float(contrast.detach())
                require_finite(f"towers, epoch {number}, step {step + 1}", click=found[0], contrast=found[1])
                clicks, contrasts = clicks + found[0], contrasts + found[1]
                loss = click + config.loss.contrastive_weight * contrast
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(towers.parameters(), 5.0)
                optimizer.step()
                if progress and task is not None:
                    progress.advance(task)
        towers.eval()
        require_finite_weights(f"towers, epoch {number}", towers)
        score = validate(towers) if validate else None
        logger.info("epoch %d: click %.4f contrast %.4f score %s", number, clicks / steps, contrasts / steps, score)
        if score is None or best_score is None or score > best_score:
            best_epoch, best_score, best = number, score, _copy(towers)
    towers.load_state_dict(best)
    towers.eval()
    return best_epoch


def learning_rate_share(done: float) -> float:
    """Share of the full learning rate after a share of all steps: up over the first 5 %, then a cosine to zero."""
    warm = 0.05
    if done < warm:
        return max(done, 1e-3) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (done - warm) / (1.0 - warm)))


@dataclass(frozen=True)
class _ItemTensors:
    statistics: Tensor
    factors: Tensor

    @classmethod
    def of(cls, rows: TrainingRows) -> _ItemTensors:
        items = rows.moment.items
        return cls(torch.from_numpy(items.statistics), torch.from_numpy(items.factors.own))


def _losses(towers: DualTower, batch: Batch, items: _ItemTensors, config: TowersConfig) -> tuple[Tensor, Tensor]:
    vectors = towers.user.combine(batch.pooled, batch.profile, batch.interests)
    candidates = towers.item(batch.candidates, items.statistics[batch.candidates], items.factors[batch.candidates])
    of_users = towers.log_odds(vectors[:, 0] @ candidates.T)
    click = click_loss(of_users, batch.weights, batch.user_positives, batch.user_weights)
    drawn = batch.nodes.shape[1]
    contrast = torch.zeros(())
    if drawn and bool((batch.nodes >= 0).any()):
        flat = vectors[:, 1:].reshape(-1, vectors.shape[2])
        exists = (batch.nodes.reshape(-1) >= 0).float()
        scores = towers.log_odds(flat @ candidates.T)
        kinds = torch.where(batch.inside, 1.0, config.loss.outside_weight) * exists[:, None]
        weights = batch.weights.repeat_interleave(drawn, dim=0) * kinds
        negative = weights.reshape(-1).index_fill(0, batch.interest_positives, 0.0).reshape(scores.shape)
        click = click + click_loss(scores, negative, batch.interest_positives, batch.interest_weights)
        if config.loss.contrastive_weight:
            learned = slice(config.factors.dim, -1)
            contrast = _contrast(flat[:, learned], candidates[:, learned], batch)
    return click / batch.total, contrast


def _contrast(flat: Tensor, candidates: Tensor, batch: Batch) -> Tensor:
    """Both contrastive losses, over the learned dimensions: a user's interests share the factors' part."""
    number = len(batch.candidates)
    line, column = batch.interest_positives // number, batch.interest_positives % number
    of_items = user_item_contrast(flat[line], candidates[column], batch.candidates[column], _TEMPERATURE)
    nodes = batch.nodes.reshape(-1)
    exists = nodes >= 0
    return of_items + interest_contrast(flat[exists], nodes[exists], _TEMPERATURE)


def _copy(towers: DualTower) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}
