"""Run methods × seeds, each once, and measure what they answered."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.choice import ValidationPoint, choose
from benchmarks.coea.metrics import LIST_LENGTH, mean, measures, ranked
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Recommender, Setting
from benchmarks.coea.result_cache import MethodLists, fingerprint, result_path
from serendipity.offline.towers.threads import limited_threads

logger = logging.getLogger(__name__)


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


def answer(method: Method, split: CategorySplit, seed: int, threads: int = 1) -> MethodLists:
    """Fit a method and ask it for lists with each of its settings."""
    started = time.perf_counter()
    with limited_threads(threads):
        fitted = method.fit(split, seed)
        validation, test = (_lists(fitted, method, episodes) for episodes in (split.validation, split.test))
    settings = tuple(method.settings)
    return MethodLists(method.name, seed, settings, validation, test, time.perf_counter() - started)


def run_comparison(
    load_split: Callable[[], CategorySplit],
    load_methods: Callable[[], Sequence[Method]],
    seeds: Sequence[int],
    cache: Path,
    jobs: int = 1,
    report: Callable[[str], None] = logger.info,
) -> list[MethodLists]:
    """Answer with every method and seed what is not in the cache yet; returns all, methods in their order.

    load_split, load_methods: called in every process, so they must be picklable where jobs > 1. report: told of every
    result. One core a job; a killed run loses what was being computed and no more.
    """
    split, methods = load_split(), load_methods()
    asked = fingerprint(split)
    paths = {(m, seed): result_path(cache, asked, method, seed) for m, method in enumerate(methods) for seed in seeds}
    missing = [key for key, path in paths.items() if not path.is_file()]
    if jobs <= 1:
        for m, seed in missing:
            found = answer(methods[m], split, seed)
            found.write(paths[m, seed])
            report(f"{methods[m].name}, seed {seed}: {found.seconds:.1f} s")
    elif missing:
        context = multiprocessing.get_context("spawn")
        start = (load_split, load_methods)
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=start) as pool:
            running = {pool.submit(_answer_in_worker, m, seed, paths[m, seed]): (m, seed) for m, seed in missing}
            for done in as_completed(running):
                m, seed = running[done]
                report(f"{methods[m].name}, seed {seed}: {done.result():.1f} s")
    return [MethodLists.read(path) for path in paths.values()]


def compare(
    split: CategorySplit, methods: Sequence[Method], lists: Sequence[MethodLists], cutoffs: Cutoffs
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
        exploitation = max(qualities, default=None) if method.family in ("exploration", "coea") else None
        chosen = choose(points[method.name], exploitation)
        per_seed = [_measure(one.test[chosen], split.test, split, cutoffs) for one in found]
        results.append(
            MethodResult(
                name=method.name,
                family=method.family,
                seeds=tuple(one.seed for one in found),
                settings=found[0].settings,
                validation=tuple(points[method.name]),
                chosen=chosen,
                per_user={name: np.stack([seed[name] for seed in per_seed]) for name in per_seed[0]},
                seconds=tuple(one.seconds for one in found),
            )
        )
    return Comparison(cutoffs, tuple(results))


def _points(split: CategorySplit, lists: Sequence[MethodLists], cutoffs: Cutoffs) -> list[ValidationPoint]:
    points = []
    for setting in range(len(lists[0].settings) if lists else 0):
        quality, novelty = [], []
        for one in lists:
            top = one.validation[setting].astype(np.int64)
            quality.append(mean(measures(top, split.validation, split, cutoffs.hit)[f"C-H@{cutoffs.hit}"]))
            novelty.append(mean(measures(top, split.validation, split, cutoffs.rank)[f"NCP@{cutoffs.rank}"]))
        points.append(ValidationPoint(float(np.mean(quality)), float(np.mean(novelty))))
    return points


def _measure(
    top: NDArray[np.int16], episodes: Episodes, split: CategorySplit, cutoffs: Cutoffs
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for k in sorted({*cutoffs.every, cutoffs.hit, cutoffs.rank}):
        found |= measures(top.astype(np.int64), episodes, split, k)
    return found


def _lists(fitted: Recommender, method: Method, episodes: Episodes) -> NDArray[np.int16]:
    lists = [ranked(fitted.scores(episodes, setting), episodes, LIST_LENGTH) for setting in method.settings]
    return np.stack(lists).astype(np.int16)


_worker: dict[str, object] = {}
"""Split and methods of a worker process, loaded once."""


def _start_worker(load_split: Callable[[], CategorySplit], load_methods: Callable[[], Sequence[Method]]) -> None:
    _worker["split"], _worker["methods"] = load_split(), load_methods()


def _answer_in_worker(method: int, seed: int, path: Path) -> float:
    split, methods = _worker["split"], _worker["methods"]
    assert isinstance(split, CategorySplit)
    assert isinstance(methods, Sequence)
    found = answer(methods[method], split, seed)
    found.write(path)
    return found.seconds
