"""Estimates the entry model (serendipity.interests.entry_model) from earlier windows of the logs.

The coefficients are refitted before the cut, as a maximum a posteriori estimate around DEFAULT_COEFFICIENTS (those of
The Complete Journey's validation period): with little data they stay there. Everything is deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.behaviour import Behaviour
from serendipity.interests.entry_model import EntryModel
from serendipity.novelty import NO_CATEGORY

DEFAULT_COEFFICIENTS: NDArray[np.float64] = np.array([-0.69, 0.72, 0.44, -0.31, 0.35, 0.50, 0.59])
"""Intercept, then TERMS."""

HORIZON_DAYS = 36.0
"""H."""

RATE_WINDOWS = 3
"""Windows of H days that the entry rate is counted in."""

FIT_WINDOWS = 2
"""Windows that the coefficients are fitted on."""

CO_RIDGE = 100.0
"""λ of the co-interest weights."""

_RATE_DECAY = 0.5
"""Weight of a window relative to the one after it."""

_PRIOR_SD = np.array([2.0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
_NEWTON_STEPS = 12


@dataclass(frozen=True)
class EntryModelConfig:
    """What depends on how many users there are. Like the constants above, for data of thousands: chosen on The Complete
    Journey's validation period (80–90 % of events).

    rate_prior: users' worth of the overall rate mixed into every category's. lift_prior: entries' worth of no lift
    mixed into every profile lift. min_value_users: profile values of fewer users are ignored. max_pairs: user–category
    pairs the coefficients are fitted on.
    """

    rate_prior: float = 50.0
    lift_prior: float = 20.0
    min_value_users: int = 20
    max_pairs: int = 1_500_000


@dataclass(frozen=True)
class Window:
    """One window of the logs: behaviour as of its start, and the categories clicked in it ([B, C + 1] bool)."""

    behaviour: Behaviour
    clicked: NDArray[np.bool_]

    @property
    def entered(self) -> NDArray[np.bool_]:
        """Categories that the users newly entered, [B, C + 1]."""
        return self.clicked & self.behaviour.unseen


def fit_entry_model(
    now: Behaviour, windows: Sequence[Window], profiles: Sequence[Mapping[str, str]], config: EntryModelConfig
) -> EntryModel:
    """Estimate the model as of a moment.

    now: behaviour at that moment; windows: the windows of H days before it, latest first, of the same users (fewer
    or none when the logs are short: rates then come from all clicks, coefficients stay at their defaults);
    profiles: of those users.
    """
    counted = _count(now, windows, profiles, config)
    parts, labels = [], []
    # The window that labels come from must not be among those its rates are counted in.
    last = min(FIT_WINDOWS, len(windows) - 1)
    rows = max(1, config.max_pairs // max(1, last * now.counts.shape[1]))
    chosen = np.unique(np.linspace(0, max(len(now) - 1, 0), min(rows, len(now))).astype(np.int64))
    for index in range(last):
        window = windows[index]
        earlier = _count(window.behaviour, windows[index + 1 :], profiles, config)
        unseen = window.behaviour.unseen[chosen]
        terms = earlier.terms(window.behaviour, profiles)[:, chosen]
        parts.append(terms[:, unseen].T)
        labels.append(window.entered[chosen][unseen])
    if not parts:
        return counted
    coefficients = _fit_logistic(np.concatenate(parts), np.concatenate(labels))
    return EntryModel(counted.rates, counted.shares, counted.co_interest, counted.lifts, coefficients)


def _count(
    now: Behaviour, windows: Sequence[Window], profiles: Sequence[Mapping[str, str]], config: EntryModelConfig
) -> EntryModel:
    size = now.counts.shape[1]
    entries, chances, clicked, users = np.zeros(size), np.zeros(size), np.zeros(size), 0.0
    for index, window in enumerate(windows[:RATE_WINDOWS]):
        weight = _RATE_DECAY**index
        entries += weight * window.entered.sum(0)
        chances += weight * window.behaviour.unseen.sum(0)
        clicked += weight * window.clicked.sum(0)
        # Of users of whom nothing is known we know that they are there now: the active users are their like.
        users += weight * window.clicked.any(1).sum()
    if not windows:
        # Nothing to see entries in: the share of users who ever clicked stands in.
        entries = clicked = (now.counts > 0).sum(0).astype(np.float64)
        chances, users = np.full(size, float(len(now))), float(len(now))
    overall = (entries.sum() + 0.5) / (chances.sum() + 50.0)
    rates = (entries + config.rate_prior * overall) / (chances + config.rate_prior)
    shares = (clicked + 0.5) / (users + 1.0)
    lifts = _lifts(windows[:RATE_WINDOWS], profiles, rates, config)
    return EntryModel(
        rates=_inside(rates),
        shares=_inside(shares),
        co_interest=_co_interest(now.evidence),
        lifts=lifts,
        coefficients=DEFAULT_COEFFICIENTS,
    )


def _inside(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped: NDArray[np.float64] = np.clip(shares, 1e-6, 0.95)
    clipped[NO_CATEGORY] = 1e-6
    return clipped


def _co_interest(evidence: NDArray[np.float32]) -> NDArray[np.float32]:
    """W = −P / diag(P) off the diagonal and 0 on it, P = (XᵀX + λI)⁻¹."""
    gram = evidence.T.astype(np.float64) @ evidence
    inverse = np.linalg.inv(gram + CO_RIDGE * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


def _lifts(
    windows: Sequence[Window],
    profiles: Sequence[Mapping[str, str]],
    rates: NDArray[np.float64],
    config: EntryModelConfig,
) -> dict[tuple[str, str], NDArray[np.float32]]:
    holders: dict[tuple[str, str], list[int]] = {}
    if not windows:
        return {}
    for row, profile in enumerate(profiles):
        for value in profile.items():
            holders.setdefault(value, []).append(row)
    lifts = {}
    for value, rows in sorted(holders.items()):
        if len(rows) < config.min_value_users:
            continue
        entries = np.sum([window.entered[rows].sum(0) for window in windows], axis=0)
        expected = np.sum([window.behaviour.unseen[rows].sum(0) * rates for window in windows], axis=0)
        lifts[value] = np.log((entries + config.lift_prior) / (expected + config.lift_prior)).astype(np.float32)
    return lifts


def _fit_logistic(terms: NDArray[np.float32], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Maximise the log posterior by Newton's method, halving steps that do not climb. terms: [n, T]; labels: [n]."""
    design = np.column_stack([np.ones(len(terms)), terms])
    precision = 1 / _PRIOR_SD**2

    def posterior(coefficients: NDArray[np.float64]) -> float:
        logits = design @ coefficients
        likelihood = logits[labels].sum() - np.logaddexp(0, logits).sum()
        return float(likelihood - 0.5 * (precision * (coefficients - DEFAULT_COEFFICIENTS) ** 2).sum())

    coefficients: NDArray[np.float64] = DEFAULT_COEFFICIENTS
    height = posterior(coefficients)
    for _ in range(_NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        gradient = design.T @ (labels - expected) - precision * (coefficients - DEFAULT_COEFFICIENTS)
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while (reached := posterior(coefficients + step)) < height and np.abs(step).max() > 1e-6:
            step = step / 2
        if reached < height:
            break
        coefficients, height = coefficients + step, reached
        if np.abs(step).max() < 1e-4:
            break
    return coefficients
