"""Chooses the controls' sizes and exponents on validation, and fits them for the period that is judged.

Validation is as many clicks before the cut as are judged after it. Each control takes the parameters with the largest
geometric mean of novel recall@20 and @100 there; nothing at or after the cut is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.controls import als, ease, fused, popularity, with_trend
from serendipity.offline.evaluate.held_out import HeldOut, Score
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, before

POPULARITY = "popularity, 28 days"
ALS_TREND = "ALS × trend"

_DEPTHS = (20, 100)

Parameters = Mapping[str, float]


@dataclass(frozen=True)
class Grid:
    """What is tried. exponents: of the trend.

    max_users: users of the validation period at most, sampled.
    """

    factors: tuple[int, ...] = (8, 16, 32, 64)
    alphas: tuple[float, ...] = (1.0, 4.0, 16.0)
    ridges: tuple[float, ...] = (100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)
    exponents: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    max_users: int = 2_000


DEFAULT_GRID = Grid()


@dataclass(frozen=True)
class Period:
    """Held-out time, and what was counted before it.

    grid: sizes that are fused. Factorisations are kept, since several controls share them.
    """

    held_out: HeldOut
    statistics: ClickStatistics
    grid: Grid = DEFAULT_GRID
    _fitted: dict[tuple[float, ...], Score] = field(default_factory=dict)

    @classmethod
    def of(cls, histories: Histories, catalogue: Catalogue, cut: int, until: int, grid: Grid = DEFAULT_GRID) -> Period:
        """Hold out [cut, until), Unix seconds."""
        held_out = HeldOut.between(histories, catalogue, cut, until)
        return cls(held_out, ClickStatistics.of(histories, held_out), grid)

    def als(self, factors: float, alpha: float, seed: int) -> Score:
        """ALS of a size, fitted once."""
        key = (factors, alpha, seed)
        if key not in self._fitted:
            self._fitted[key] = als(self.held_out, int(factors), alpha, seed)
        return self._fitted[key]

    def ease(self, ridge: float) -> Score:
        """EASE of a ridge, fitted once."""
        if (ridge,) not in self._fitted:
            self._fitted[ridge,] = ease(self.held_out, ridge)
        return self._fitted[ridge,]

    def with_trend(self, score: Score, exponent: float) -> Score:
        """Multiply by a power of the period's trend."""
        return with_trend(self.held_out, score, self.statistics.trend, exponent)


@dataclass(frozen=True)
class Control:
    """A control.

    fit: period, parameters, seed → scores; tried: its parameters of a grid; seeded: whether a seed changes it.
    """

    name: str
    fit: Callable[[Period, Parameters, int], Score]
    tried: Callable[[Grid], Iterator[Parameters]]
    seeded: bool = False


@dataclass(frozen=True)
class Chosen:
    """Parameters chosen for a control, and its novel recall@20 and @100 with them on validation."""

    control: Control
    parameters: Parameters
    validation: tuple[float, float]


def _grid(**axes: str) -> Callable[[Grid], Iterator[Parameters]]:
    """Combine fields of the grid. axes: parameter → field."""
    return lambda grid: (
        dict(zip(axes, values, strict=True)) for values in product(*(getattr(grid, axis) for axis in axes.values()))
    )


def _everything_fused(period: Period, parameters: Parameters, seed: int) -> Score:
    grid = period.grid
    scores = [period.als(factors, alpha, seed) for factors, alpha in product(grid.factors, grid.alphas)]
    scores += [period.ease(ridge) for ridge in grid.ridges]
    return period.with_trend(fused(scores), parameters["exponent"])


CONTROLS = (
    Control("popularity", lambda period, _, _seed: popularity(period.held_out, period.statistics.users), _grid()),
    Control(POPULARITY, lambda period, _, _seed: popularity(period.held_out, period.statistics.recent_users), _grid()),
    Control("ALS, 64 factors", lambda period, _, seed: period.als(64, 1.0, seed), _grid(), seeded=True),
    Control(
        "ALS",
        lambda period, chosen, seed: period.als(chosen["factors"], chosen["alpha"], seed),
        _grid(factors="factors", alpha="alphas"),
        seeded=True,
    ),
    Control(
        ALS_TREND,
        lambda period, chosen, seed: period.with_trend(
            period.als(chosen["factors"], chosen["alpha"], seed), chosen["exponent"]
        ),
        _grid(factors="factors", alpha="alphas", exponent="exponents"),
        seeded=True,
    ),
    Control(
        "EASE × trend",
        lambda period, chosen, _seed: period.with_trend(period.ease(chosen["ridge"]), chosen["exponent"]),
        _grid(ridge="ridges", exponent="exponents"),
    ),
    Control("all ALS and EASE, fused × trend", _everything_fused, _grid(exponent="exponents")),
)
"""In the order of reports."""


def choose_controls(
    histories: Histories,
    catalogue: Catalogue,
    cut: int,
    grid: Grid = DEFAULT_GRID,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Chosen, ...]:
    """Choose every control's parameters on the clicks just before `cut`; equal ones: the first that was tried.

    advance: told of every combination tried. Raises ValueError when there is nobody to choose on.
    """
    start = validation_start(histories, cut)
    period = Period.of(before(histories, cut), catalogue, start, cut, grid)
    novel = period.held_out.novel
    if not len(novel):
        raise ValueError("controls: found no novel target just before the cut, expected a longer history to choose on")
    users = np.sort(np.random.default_rng(0).permutation(novel.users)[: grid.max_users])
    targets = novel.of_users(users)

    def judge(control: Control, parameters: Parameters) -> Chosen:
        ranked = period.held_out.top_k(control.fit(period, parameters, 0), users, max(_DEPTHS), novel=True)
        recall = [float(targets.recall(ranked, k).mean()) for k in _DEPTHS]
        advance(1)
        return Chosen(control, parameters, (recall[0], recall[1]))

    return tuple(
        max((judge(control, parameters) for parameters in control.tried(grid)), key=lambda one: np.prod(one.validation))
        for control in CONTROLS
    )


def validation_start(histories: Histories, cut: int) -> int:
    """Find where validation begins, which has as many clicks as came at or after the cut.

    Raises ValueError when there is none at or after the cut.
    """
    times = np.sort(histories.times)
    known = int(np.searchsorted(times, cut))
    judged = len(times) - known
    if not judged:
        raise ValueError(f"controls: found no click at or after the cut {cut}, expected a period that can be judged")
    return int(times[max(known - judged, 0)])
