"""Run methods × seeds, each once, and measure what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.choice import ValidationPoint, choose
from benchmarks.coea.code_digest import code_of
from benchmarks.coea.metrics import LIST_LENGTH, mean, measures, ranked
from benchmarks.coea.protocol import TRADING, CategorySplit, Episodes, Family, Method, Recommender, Setting
from benchmarks.coea.shared_trainings import SharedTrainings
from benchmarks.coea.trial import Answers, TrialResult, run_trials


@dataclass(frozen=True)
class Cutoffs:
    """The K of Table 2: C-H@`hit`, and C-N, NCP and CLTP @`rank`; `every` is what is measured."""

    hit: int
    rank: int
    every: tuple[int, ...] = (1, 5, 10)

    @classmethod
    def of(cls, split: CategorySplit) -> Cutoffs:
        """C-H@1 and the others @5 where one click is held out of a few categories, all @10 over a period."""
        return cls(1, 5) if split.kind == "leave-last-out" else cls(10, 10)


@dataclass(frozen=True)
class MethodResult:
    """A method over its seeds, with the trade-off chosen on validation.

    validation: a point a setting, over seeds; chosen: index of the one reported. per_user: measure → [seeds, n] on the
    test episodes, NaN where a user has no such target. seconds: of each seed.
    """

    name: str
    family: Family
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]
    validation: tuple[ValidationPoint, ...]
    chosen: int
    per_user: Mapping[str, NDArray[np.float64]]
    seconds: tuple[float, ...]

    @property
    def setting(self) -> Setting:
        """The trade-off reported."""
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
    """All methods on the same test episodes."""

    cutoffs: Cutoffs
    results: tuple[MethodResult, ...]

    def best(self, family: Family, measure: str) -> MethodResult | None:
        """The method of a family with the highest mean of a measure on the test episodes; None where none was run."""
        rows = [result for result in self.results if result.family == family]
        return max(rows, key=lambda result: float(result.by_seed(measure).mean()), default=None)

    def among(self, users: NDArray[np.bool_]) -> Comparison:
        """Measure some of the test's users alone, with the same choices. users: [n] bool."""
        return replace(
            self,
            results=tuple(
                replace(
                    result,
                    per_user={name: np.where(users, values, np.nan) for name, values in result.per_user.items()},
                )
                for result in self.results
            ),
        )


@dataclass(frozen=True)
class MethodTrial:
    """A method fitted with one seed and asked for lists with each of its settings.

    Answers: "validation" and "test", [settings, n, K] int16 columns, −1 past a list's end.
    """

    method: Method

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def configuration(self) -> Mapping[str, object]:
        """Configuration and settings, and the code of the method's own module.

        Code further away is looked at where the method's configuration digests it (`code_of_package`).
        """
        return {
            "configuration": dict(self.method.configuration),
            "settings": [dict(setting) for setting in self.method.settings],
            "code": code_of(type(self.method).__module__),
        }

    def run(self, split: CategorySplit, seed: int, shared: SharedTrainings) -> Answers:  # noqa: ARG002
        """Fit and ask. Rows share by what they hold themselves."""
        fitted = self.method.fit(split, seed)
        return {
            "validation": _lists(fitted, self.method, split.validation),
            "test": _lists(fitted, self.method, split.test),
        }


def run_comparison(
    split: CategorySplit,
    methods: Sequence[Method],
    seeds: Sequence[int],
    directory: Path,
    jobs: int = 1,
) -> list[TrialResult]:
    """Answer with every method and seed what is not kept yet; returns all, methods in their order. See `run_trials`.

    Rows of one module and seed run in one process, since they may share trainings.
    """
    trials = [MethodTrial(method) for method in methods]
    return run_trials(split, trials, seeds, directory, jobs, sharing=lambda trial: type(trial.method).__module__)


def compare(
    split: CategorySplit, methods: Sequence[Method], lists: Sequence[TrialResult], cutoffs: Cutoffs
) -> Comparison:
    """Choose every method's trade-off on validation, exploitation methods first, and measure it on the test."""
    points = {
        method.name: _points(split, [found for found in lists if found.name == method.name], cutoffs)
        for method in methods
    }
    qualities = [
        point.quality for method in methods if method.family == "exploitation" for point in points[method.name]
    ]
    results = []
    for method in methods:
        found = [one for one in lists if one.name == method.name]
        if not found:
            continue
        exploitation = max(qualities, default=None) if method.family in TRADING else None
        chosen = choose(points[method.name], exploitation)
        per_seed = [_measure(one.answers["test"][chosen], split.test, split, cutoffs) for one in found]
        results.append(
            MethodResult(
                name=method.name,
                family=method.family,
                seeds=tuple(one.seed for one in found),
                settings=tuple(method.settings),
                validation=tuple(points[method.name]),
                chosen=chosen,
                per_user={name: np.stack([seed[name] for seed in per_seed]) for name in per_seed[0]},
                seconds=tuple(one.seconds for one in found),
            )
        )
    return Comparison(cutoffs, tuple(results))


def _points(split: CategorySplit, lists: Sequence[TrialResult], cutoffs: Cutoffs) -> list[ValidationPoint]:
    points = []
    for setting in range(len(lists[0].answers["validation"]) if lists else 0):
        quality, novelty = [], []
        for one in lists:
            top = one.answers["validation"][setting].astype(np.int64)
            quality.append(mean(measures(top, split.validation, split, cutoffs.hit)[f"C-H@{cutoffs.hit}"]))
            novelty.append(mean(measures(top, split.validation, split, cutoffs.rank)[f"NCP@{cutoffs.rank}"]))
        points.append(ValidationPoint(float(np.mean(quality)), float(np.mean(novelty))))
    return points


def _measure(
    top: NDArray[np.generic], episodes: Episodes, split: CategorySplit, cutoffs: Cutoffs
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for k in sorted({*cutoffs.every, cutoffs.hit, cutoffs.rank}):
        found |= measures(top.astype(np.int64), episodes, split, k)
    return found


def _lists(fitted: Recommender, method: Method, episodes: Episodes) -> NDArray[np.int16]:
    lists = [ranked(fitted.scores(episodes, setting), episodes, LIST_LENGTH) for setting in method.settings]
    return np.stack(lists).astype(np.int16)
