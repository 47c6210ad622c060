"""Losses and weights that are numbers: a training that has diverged ends a build instead of leaving what it made."""

from __future__ import annotations

import math

import torch
from torch import nn

from serendipity.offline.errors import BuilderError


class DivergedError(BuilderError):
    """A training has diverged: names it, the step, the figure and what was expected."""


def require_finite(training: str, **figures: float) -> None:
    """Look at a step's figures. training: which it is, and the step. Raises DivergedError."""
    if not all(map(math.isfinite, figures.values())):
        found = ", ".join(f"{name} {figure:g}" for name, figure in figures.items())
        raise DivergedError(f"{training}: found {found}, expected finite numbers; lower the learning rate")


def require_finite_weights(training: str, module: nn.Module) -> None:
    """Look at all that is stored of a module. training: which it is, and the step. Raises DivergedError."""
    for name, weights in module.state_dict().items():
        if not bool((finite := torch.isfinite(weights)).all()):
            require_finite(f"{training}, {name}", weight=float(weights[~finite][0]))
