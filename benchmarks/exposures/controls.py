"""Who else could rank exposed items: simple methods on the clicks before a moment, chosen on exposures before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.exposures.log import ExposureLog, click_rates
from benchmarks.exposures.ranking import ordered_pairs
from serendipity.offline.evaluate.controls import als, ease, with_trend
from serendipity.offline.evaluate.held_out import HeldOut, Score
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_WEEK = 7 * 86_400
_PRIOR_USERS = 4.0
"""Users' worth of the overall share mixed into every item's trend, as in evaluate.click_statistics."""
_BATCH = 512

Parameters = Mapping[str, float]


@dataclass(frozen=True)
class Known:
    """What controls may know: all that came before a moment.

    held_out: of that moment; users, week_users: [n] float32 distinct users who clicked each item, ever and in the
    latest seven days; shown: exposures before the moment. Factorisations are kept, since exponents share them.
    """

    held_out: HeldOut
    users: NDArray[np.float32]
    week_users: NDArray[np.float32]
    shown: ExposureLog
    _fitted: dict[tuple[float, ...], Score] = field(default_factory=dict, repr=False)

    def als(self, factors: float, alpha: float) -> Score:
        """ALS of a size, fitted once."""
        if (factors, alpha) not in self._fitted:
            self._fitted[factors, alpha] = als(self.held_out, int(factors), alpha, seed=0)
        return self._fitted[factors, alpha]

    def ease(self, ridge: float) -> Score:
        """EASE of a ridge, fitted once."""
        if (ridge,) not in self._fitted:
            self._fitted[ridge,] = ease(self.held_out, ridge)
        return self._fitted[ridge,]

    @classmethod
    def before(cls, histories: Histories, catalogue: Catalogue, log: ExposureLog, cut: int, until: int) -> Known:
        """Look at nothing from `cut` on, Unix seconds. until: end of the period that is judged."""
        held_out = HeldOut.between(histories, catalogue, cut, until)
        lately = (histories.times >= cut - _WEEK) & (histories.times < cut) & (histories.items > 0)
        pairs = np.unique(np.stack([histories.users[lately].astype(np.int64), histories.items[lately] - 1]), axis=1)
        return cls(
            held_out=held_out,
            users=np.asarray(held_out.seen.sum(axis=0), np.float32).ravel(),
            week_users=np.bincount(pairs[1], minlength=len(catalogue)).astype(np.float32),
            shown=log.between(0, cut),
        )

    @property
    def week_trend(self) -> NDArray[np.float32]:
        """[n] share of an item's users that came in the latest seven days, relative to that of all items, smoothed."""
        overall = max(float(self.week_users.sum()) / max(float(self.users.sum()), 1.0), 1e-9)
        trend = (self.week_users + _PRIOR_USERS * overall) / (self.users + _PRIOR_USERS) / overall
        return trend.astype(np.float32)


Rank = Callable[[ExposureLog], NDArray[np.float64]]
"""Exposures → their scores, [n]; −∞ for what a method knows nothing of."""


@dataclass(frozen=True)
class Control:
    """A way to rank. tried: parameters that validation chooses among; fit: known, parameters → ranking."""

    name: str
    tried: Sequence[Parameters]
    fit: Callable[[Known, Parameters], Rank]


def _grid(**axes: Sequence[float]) -> list[Parameters]:
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _by_item(values: NDArray[np.float32]) -> Rank:
    return lambda log: values[log.rows].astype(np.float64)


def _by_user(held_out: HeldOut, score: Score) -> Rank:
    """Take the scores of users and items from those of users and all candidates."""
    place = np.full(len(held_out.item_categories), -1, np.int64)
    place[held_out.candidates] = np.arange(len(held_out.candidates))

    def rank(log: ExposureLog) -> NDArray[np.float64]:
        scores = np.full(len(log), -np.inf)
        users, owners = np.unique(log.users, return_inverse=True)
        columns = place[log.rows]
        for start in range(0, len(users), _BATCH):
            some = users[start : start + _BATCH]
            # The log is ascending by user.
            here = slice(*np.searchsorted(owners, [start, start + len(some)]).tolist())
            values = score(some)
            known = columns[here] >= 0
            scores[here][known] = values[owners[here][known] - start, columns[here][known]]
        return scores

    return rank


def _neighbours(known: Known, parameters: Parameters) -> Rank:
    clicks = known.held_out.seen[:, known.held_out.candidates].tocsr()
    lengths = sparse.diags_array(1 / np.sqrt(known.users[known.held_out.candidates]), dtype=np.float64)
    model = ItemItemRecommender(K=int(parameters["neighbours"]))
    model.fit((clicks @ lengths).tocsr(), show_progress=False)  # products of columns of length 1: cosines
    similarity = model.similarity.astype(np.float32).tocsr()
    return _by_user(known.held_out, lambda some: (clicks[some] @ similarity).toarray())


def _trending(known: Known, score: Score, parameters: Parameters) -> Rank:
    trended = with_trend(known.held_out, score, known.week_trend, parameters["exponent"])
    return _by_user(known.held_out, trended)


def _click_rate(known: Known, parameters: Parameters) -> Rank:
    rates = click_rates(known.shown, known.shown.rows, len(known.users), parameters["prior"])
    return _by_item(rates.astype(np.float32))


CLICK_RATE = "click rate of the item"
"""Name of the control that reads exposures, as neither the others nor the channel do."""

_EXPONENTS = (0.0, 0.5, 1.0)

CONTROLS = (
    Control("popularity", _grid(), lambda known, _: _by_item(known.users)),
    Control("popularity, 7 days", _grid(), lambda known, _: _by_item(known.week_users)),
    Control("item-kNN", _grid(neighbours=(20, 100, 500)), _neighbours),
    Control(
        "ALS × trend",
        _grid(factors=(8, 16, 32), alpha=(1.0, 4.0), exponent=_EXPONENTS),
        lambda known, chosen: _trending(known, known.als(chosen["factors"], chosen["alpha"]), chosen),
    ),
    Control(
        "EASE × trend",
        _grid(ridge=(300.0, 3_000.0), exponent=_EXPONENTS),
        lambda known, chosen: _trending(known, known.ease(chosen["ridge"]), chosen),
    ),
    Control(CLICK_RATE, _grid(prior=(5.0, 20.0, 80.0)), _click_rate),
)
"""In the order of the page."""


@dataclass(frozen=True)
class Chosen:
    """A control with the parameters that ordered most pairs right on validation, and the share of them."""

    control: Control
    parameters: Parameters
    validation: float


def choose(control: Control, known: Known, judged: ExposureLog) -> Chosen:
    """Choose parameters: the first of those with most pairs of a user in the right order. judged: novel exposures after
    the moment of `known`."""
    num_users = known.held_out.seen.shape[0]
    found = []
    for parameters in control.tried:
        sums = ordered_pairs(judged, control.fit(known, parameters)(judged), num_users)
        found.append(Chosen(control, parameters, float(sums.numerator.sum() / max(sums.denominator.sum(), 1))))
    return max(found, key=lambda one: one.validation)
