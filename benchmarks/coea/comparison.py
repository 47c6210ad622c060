"""Rows × seeds: the setting of each chosen on validation, and measured on the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.choice import ValidationPoint, choose
from benchmarks.coea.metrics import hit_and_novelty, mean, measures, ranked
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.rows import Family, Known, Row, Setting
from benchmarks.coea.trial import TrialResult


@dataclass(frozen=True)
class Cutoffs:
    """The K of Table 2: C-H@`hit`, and C-N, NCP and CLTP @`rank`; `every` is what is measured."""

    hit: int
    rank: int
    every: tuple[int, ...] = (1, 2, 3, 4, 5, 10)

    @classmethod
    def of(cls, split: CategorySplit) -> Cutoffs:
        """C-H@1 and the others @5 where one click is held out of a few categories, all @10 over a period."""
        return cls(1, 5) if split.kind == "leave-last-out" else cls(10, 10)


@dataclass(frozen=True)
class Point:
    """A setting on the test: measure → [seeds], means over users."""

    setting: Setting
    by_seed: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class RowResult:
    """A row over its seeds, with the setting chosen on validation.

    validation: a point a setting, over seeds; chosen: index of the one reported. per_user: measure → [seeds, n] on the
    test episodes, NaN where a user has no such target. lists: [seeds, n, K] columns. curve: the chosen setting with
    every bonus; empty where there is none.
    """

    name: str
    family: Family
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]
    validation: tuple[ValidationPoint, ...]
    chosen: int
    per_user: Mapping[str, NDArray[np.float64]]
    lists: NDArray[np.int64]
    curve: tuple[Point, ...]

    @property
    def setting(self) -> Setting:
        """The setting reported."""
        return self.settings[self.chosen]

    def by_seed(self, measure: str) -> NDArray[np.float64]:
        """Mean of a measure over users, for every seed: [seeds]."""
        return np.array([mean(values) for values in self.per_user[measure]])

    def by_user(self, measure: str) -> NDArray[np.float64]:
        """Mean of a measure over seeds, for every user it is defined for: [n']."""
        values = self.per_user[measure]
        found: NDArray[np.float64] = values[:, ~np.isnan(values[0])].mean(axis=0)
        return found


@dataclass(frozen=True)
class Comparison:
    """All rows on the same test episodes."""

    cutoffs: Cutoffs
    results: tuple[RowResult, ...]

    def named(self, name: str) -> RowResult | None:
        """The row of a name, None where it was not made."""
        return next((result for result in self.results if result.name == name), None)

    def best(self, family: Family, measure: str) -> RowResult | None:
        """The row of a family with the highest mean of a measure on the test episodes; None where there is none."""
        found = [result for result in self.results if result.family == family]
        return max(found, key=lambda result: float(result.by_seed(measure).mean()), default=None)

    def among(self, users: NDArray[np.bool_]) -> Comparison:
        """Measure some of the test's users alone, with the same choices. users: [n] bool."""

        def of(result: RowResult) -> RowResult:
            kept = {name: np.where(users, values, np.nan) for name, values in result.per_user.items()}
            return replace(result, per_user=kept)

        return replace(self, results=tuple(map(of, self.results)))


def compare(split: CategorySplit, rows: Sequence[Row], found: Sequence[TrialResult], cutoffs: Cutoffs) -> Comparison:
    """Choose every row's setting on validation, exploitation rows first, and measure it on the test.

    Rows of which a trial is missing are left out.
    """
    trials = {result.name for result in found}
    made = [row for row in rows if trials >= set(row.trials)]
    seeds = tuple(sorted({result.seed for result in found})) or (0,)
    known = {
        name: [Known(episodes, _scores(split, found, seed, name)) for seed in seeds]
        for name, episodes in (("validation", split.validation), ("test", split.test))
    }
    points = {row.name: _points(row, known["validation"], cutoffs) for row in made}
    exploitation = max(
        (point.quality for row in made if row.family == "exploitation" for point in points[row.name]), default=None
    )
    results = []
    for row in made:
        chosen = choose(points[row.name], exploitation if row.family in ("control", "coea") else None)
        setting = row.settings[chosen]
        lists = [_listed(row, one, setting) for one in known["test"]]
        per_seed = [_measure(top, split.test, split, cutoffs) for top in lists]
        curve = tuple(
            Point(along, _means([_listed(row, one, along) for one in known["test"]], split, cutoffs))
            for along in row.along_the_trigger(setting)
        )
        per_user = {name: np.stack([seed[name] for seed in per_seed]) for name in per_seed[0]}
        validation = tuple(points[row.name])
        results.append(
            RowResult(row.name, row.family, seeds, row.settings, validation, chosen, per_user, np.stack(lists), curve)
        )
    return Comparison(cutoffs, tuple(results))


def _scores(
    split: CategorySplit, found: Sequence[TrialResult], seed: int, episodes: str
) -> dict[str, NDArray[np.float32]]:
    """Name what the trials of a seed say of the episodes: a trial's only answer by its name, others by their own."""
    users = len(split.validation if episodes == "validation" else split.test)
    popularity = np.log1p(split.category_clicks).astype(np.float32)
    scores = {"popularity": np.tile(popularity, (users, 1))}
    for result in found:
        if result.seed == seed:
            for name, values in result.answers.items():
                if name.startswith(episodes):
                    scores[name.removeprefix(episodes).strip() or result.name] = values.astype(np.float32)
    return scores


def _listed(row: Row, known: Known, setting: Setting) -> NDArray[np.int64]:
    return ranked(row.scores(known, setting), known.episodes)


def _points(row: Row, known: Sequence[Known], cutoffs: Cutoffs) -> list[ValidationPoint]:
    points = []
    for setting in row.settings:
        found = [hit_and_novelty(_listed(row, one, setting), one.episodes, cutoffs.hit, cutoffs.rank) for one in known]
        points.append(ValidationPoint(*np.mean(found, axis=0).tolist()))
    return points


def _means(
    lists: Sequence[NDArray[np.int64]], split: CategorySplit, cutoffs: Cutoffs
) -> dict[str, NDArray[np.float64]]:
    found = [_measure(top, split.test, split, cutoffs) for top in lists]
    return {name: np.array([mean(seed[name]) for seed in found]) for name in found[0]}


def _measure(
    top: NDArray[np.int64], episodes: Episodes, split: CategorySplit, cutoffs: Cutoffs
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for k in sorted({*cutoffs.every, cutoffs.hit, cutoffs.rank}):
        found |= measures(top, episodes, split, k)
    return found
