"""Training: for as many epochs as is said, or until vectors get no better by some score."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from serendipity.offline.finite import require_finite, require_finite_weights
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.graph.model import GraphModel
from serendipity.offline.graph.objective import Losses, Objective
from serendipity.offline.graph.sampling import ClickSampler
from serendipity.offline.graph.vectors import GraphVectors
from serendipity.offline.towers.threads import limited_threads

logger = logging.getLogger(__name__)

Validate = Callable[[GraphVectors], float]
"""Score of vectors, higher is better."""


@dataclass(frozen=True)
class Look:
    """A look at a training: epochs done, mean losses per step since the last look, and the validation score."""

    epoch: int
    losses: dict[str, float]
    score: float | None


@dataclass(frozen=True)
class Training:
    """A finished training: vectors of its best epoch, which that was (from 1), its score, and all looks."""

    vectors: GraphVectors
    best_epoch: int
    best_score: float | None
    looks: tuple[Look, ...]


def fit(
    graph: InterestGraph,
    config: GraphConfig,
    *,
    validate: Validate | None = None,
    epochs: int | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train on all clicks of a graph; on a GPU where there is one.

    With `validate` the best of all looks is kept, and training ends after `patience` looks without a better one;
    without, the last of `epochs` (default: max_epochs) is.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    last = config.trainer.max_epochs if epochs is None else epochs
    with limited_threads(config.trainer.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        run = _Run(graph, config, device, validate, last)
        task = progress.add_task("graph", total=last) if progress else None
        while run.epoch < last and run.worse < config.trainer.patience:
            run.go_on()
            if progress and task is not None:
                progress.update(task, completed=run.epoch, description=run.told())
        return run.finish()


class _Run:
    """A training under way."""

    def __init__(
        self,
        graph: InterestGraph,
        config: GraphConfig,
        device: torch.device,
        validate: Validate | None,
        last: int,
    ) -> None:
        self.epoch = self.worse = self._best_epoch = 0
        self._graph, self._config, self._device, self._validate, self._last = graph, config, device, validate, last
        self._sampler = ClickSampler(graph)
        self._model = GraphModel(graph, config).to(device)
        self._best: dict[str, Tensor] = {}
        self._best_score: float | None = None
        self._looks: list[Look] = []
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._objective = Objective(graph, self._model, config, device)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=config.trainer.learning_rate)
        shared = [self._model.nodes, self._model.relations]
        shared += [self._model.users] if self._model.users is not None else []
        self._translator = torch.optim.Adam(shared, lr=config.transe.learning_rate)

    def go_on(self) -> None:
        """Train for one more epoch, and look at what it came to where that is due."""
        rng = np.random.default_rng([self._config.seed, 2, self.epoch])
        noise = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
        self._model.train()
        for step, batch in enumerate(self._sampler.epoch(self._config.trainer.batch_clicks, rng), 1):
            losses = self._objective.losses(torch.from_numpy(batch).to(self._device), self.epoch, rng, noise)
            self._step(self._optimizer, losses, f"step {step}")
            self._steps += 1
        for step, losses in enumerate(self._objective.translations(4 * self._config.trainer.batch_clicks, rng), 1):
            self._step(self._translator, losses, f"translation {step}")
        self.epoch += 1
        if self.epoch % self._config.trainer.check_every == 0 or self.epoch == self._last:
            self._look()

    def _step(self, optimizer: torch.optim.Optimizer, losses: Losses, step: str) -> None:
        found = {name: float(value.detach()) for name, value in losses.items()}
        require_finite(f"graph, epoch {self.epoch + 1}, {step}", **found)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _look(self) -> None:
        require_finite_weights(f"graph, epoch {self.epoch}", self._model)
        score = self._validate(self._vectors()) if self._validate else None
        losses = {name: value / self._steps for name, value in self._sums.items()}
        self._looks.append(Look(self.epoch, losses, score))
        self._sums, self._steps = {}, 0
        better = score is None or self._best_score is None or score > self._best_score
        self.worse = 0 if better else self.worse + 1
        if better:
            self._best_epoch, self._best_score = self.epoch, score
            self._best = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        logger.info("%s", self.told())

    def told(self) -> str:
        """Say in a line where the training stands."""
        if not self._looks:
            return f"graph, epoch {self.epoch}"
        look = self._looks[-1]
        losses = "  ".join(f"{name} {value:.4f}" for name, value in look.losses.items())
        score = "" if look.score is None else f"  score {look.score:.4f} (best {self._best_score:.4f})"
        return f"graph, epoch {look.epoch}: {losses}{score}"

    def finish(self) -> Training:
        """Read the vectors of the best epoch off."""
        if self._best:
            self._model.load_state_dict(self._best)
        return Training(self._vectors(), self._best_epoch, self._best_score, tuple(self._looks))

    def _vectors(self) -> GraphVectors:
        self._model.eval()
        return self._model.vectors(self._graph, self._objective.whole)
