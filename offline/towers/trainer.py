"""Training: epochs over the rows of several cuts, early stopping, checkpoints that a killed run resumes from."""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

CHECKPOINT = "checkpoint.pt"

_COLD_SHARE = 0.02
"""Share of rows shown without history, so that a user nothing is known of gets sensible vectors."""

_TEMPERATURE = 0.1
"""τ of the contrastive losses."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean training losses per batch and the validation score (higher is better)."""

    number: int
    click: float
    contrast: float
    score: float | None


@dataclass(frozen=True)
class Training:
    """A finished training. best_epoch: epochs trained when the towers were best (from 1); epochs: all that were run."""

    best_epoch: int
    epochs: tuple[Epoch, ...]


def train(
    towers: DualTower,
    rows: Sequence[TrainingRows],
    item_categories: NDArray[np.int32],
    nodes: InterestNodes,
    config: TowersConfig,
    *,
    checkpoints: Path,
    validate: Callable[[DualTower], float] | None,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train in place and leave the towers as they were at their best epoch.

    validate: score of the towers as they are, higher is better; training stops after `patience` epochs without a
    better one. Without it, `epochs` epochs are run, on the learning rates of the first of max_epochs, and the last is
    the best. A checkpoint is written after every epoch; one that is found below `checkpoints` from the same
    configuration and rows is resumed from, with the result of a run that was never interrupted. Raises DivergedError.
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
    state = _State.start(towers, _identity(config, rows, last, validate is not None))
    state.resume(checkpoints / CHECKPOINT, towers, optimizer)
    items = [_ItemTensors.of(part) for part in rows]
    task = progress.add_task("towers", total=last * steps, completed=len(state.epochs) * steps) if progress else None
    while len(state.epochs) < last and not (validate and state.since_best >= trainer.patience):
        number = len(state.epochs) + 1
        # Everything random in an epoch follows from (seed, epoch), so that a resumed run repeats it.
        rng = np.random.default_rng([config.seed, number])
        clicks = contrasts = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            towers.train()
            for step, (cut, index) in enumerate(plan_epoch(samplers, trainer.batch_users, rng)):
                done = ((number - 1) * steps + step) / (trainer.max_epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = trainer.learning_rate * learning_rate_share(done)
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
        epoch = Epoch(number, clicks / steps, contrasts / steps, score)
        state.add(epoch, towers)
        logger.info("epoch %d: click %.4f contrast %.4f score %s", number, epoch.click, epoch.contrast, score)
        state.write(checkpoints / CHECKPOINT, towers, optimizer)
    towers.load_state_dict(state.best)
    towers.eval()
    return Training(state.best_epoch, tuple(state.epochs))


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


def _identity(config: TowersConfig, rows: Sequence[TrainingRows], epochs: int, validated: bool) -> str:
    """Tell whether a checkpoint belongs to this run: configuration, length and the rows themselves."""
    digest = hashlib.sha256(config.model_dump_json().encode() + f"{epochs} {validated}".encode())
    for part in rows:
        digest.update(f"{part.moment.time} {part.until}".encode())
        for column in (part.moment.users, part.rows, part.slots, part.moment.inputs.history_items):
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


@dataclass
class _State:
    """Where a training stands."""

    identity: str
    epochs: list[Epoch]
    best_epoch: int
    best: dict[str, Tensor]

    @classmethod
    def start(cls, towers: DualTower, identity: str) -> _State:
        return cls(identity, [], 0, _copy(towers))

    @property
    def since_best(self) -> int:
        return len(self.epochs) - self.best_epoch

    def add(self, epoch: Epoch, towers: DualTower) -> None:
        self.epochs.append(epoch)
        best = self.epochs[self.best_epoch - 1].score if self.best_epoch else None
        if epoch.score is None or best is None or epoch.score > best:
            self.best_epoch, self.best = epoch.number, _copy(towers)

    def write(self, path: Path, towers: DualTower, optimizer: torch.optim.Optimizer) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # torch.save writes the name into the file: the same in every process.
        beside = path.with_name(f".{path.name}")
        content = {
            "identity": self.identity,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best_epoch,
            "best": self.best,
            "towers": towers.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(content, beside)
        beside.replace(path)

    def resume(self, path: Path, towers: DualTower, optimizer: torch.optim.Optimizer) -> None:
        if not path.is_file():
            return
        try:
            content: dict[str, Any] = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("%s: cannot be read (%s); training from the start", path, error)
            return
        if content["identity"] != self.identity:
            logger.info("%s: from another configuration or other rows; training from the start", path)
            return
        self.epochs = [Epoch(**epoch) for epoch in content["epochs"]]
        self.best_epoch, self.best = content["best_epoch"], content["best"]
        towers.load_state_dict(content["towers"])
        optimizer.load_state_dict(content["optimizer"])
        logger.info("%s: resumed after epoch %d", path, len(self.epochs))


def _copy(towers: DualTower) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in towers.state_dict().items()}
