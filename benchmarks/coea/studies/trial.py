"""One training of a study with one seed, kept on disk: what a killed study continues from.

Answers are kept, not figures, as `result_cache` does; trials of one seed run in one process, one after the other, so
that they share what they have in common.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea import studies
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.result_cache import code_of_package, fingerprint
from benchmarks.coea.shared_trainings import SharedTrainings
from serendipity.layout import write_atomically
from serendipity.offline import coevolution, groups, tuning
from serendipity.offline.towers.threads import limited_threads

logger = logging.getLogger(__name__)

_FORMAT = 1
_PREFIX = "answers."
_POLL_SECONDS = 1.0

_PACKAGES = (studies, coevolution, groups, tuning)
"""Whose code decides the answers."""

Answers = Mapping[str, NDArray[np.generic]]
"""What a trial found, by name: whatever its study asks for."""


class Trial(Protocol):
    """What a study runs once a seed.

    name: unique among the trials of a run. configuration: everything that changes its answers besides split and seed,
    JSON-able.
    """

    @property
    def name(self) -> str:
        """Name in file names and reports."""
        ...

    @property
    def configuration(self) -> Mapping[str, object]:
        """Everything that changes its answers besides split and seed."""
        ...

    def run(self, split: CategorySplit, seed: int, shared: SharedTrainings) -> Answers:
        """Train on split.training and answer. shared: with the other trials of this seed."""
        ...


@dataclass(frozen=True)
class TrialResult:
    """What a trial with one seed found. seconds: its own, what it was the first to share included."""

    name: str
    seed: int
    seconds: float
    answers: Answers

    def write(self, path: Path) -> None:
        """Write beside, then move into place."""
        about = {"name": self.name, "seed": self.seed, "seconds": self.seconds}
        buffer = io.BytesIO()
        prefixed = {_PREFIX + name: found for name, found in self.answers.items()}
        np.savez_compressed(buffer, about=np.array(json.dumps(about)), **prefixed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> TrialResult:
        """Read what `write` wrote."""
        with np.load(path) as stored:
            about = json.loads(str(stored["about"]))
            answers = {name.removeprefix(_PREFIX): stored[name] for name in stored.files if name.startswith(_PREFIX)}
        return cls(about["name"], about["seed"], about["seconds"], answers)


def trial_path(cache: Path, split: str, trial: Trial, seed: int) -> Path:
    """Name the file of a trial with a seed. split: its fingerprint.

    The name changes with the split, the configuration, and the code of the studies, the groups and the LLMs.
    """
    facts = {
        "format": _FORMAT,
        "split": split,
        "configuration": dict(trial.configuration),
        "code": [code_of_package(package) for package in _PACKAGES],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    slug = "".join(letter if letter.isalnum() else "-" for letter in trial.name.lower())
    return cache / f"study-{slug}-{seed}-{digest}.npz"


def run_trials(
    load_split: Callable[[], CategorySplit],
    trials: Sequence[Trial],
    seeds: Sequence[int],
    cache: Path,
    jobs: int = 1,
    report: Callable[[str], None] = logger.info,
) -> list[TrialResult]:
    """Run with every seed what is not in the cache yet; returns all, trials in their order, seeds within.

    load_split: called in every process, so it must be picklable, as trials must, where jobs > 1. A job is one core and
    one seed: what a killed run was computing is lost, and no more. report: told of every result.
    """
    split = load_split()
    asked = fingerprint(split)
    paths = {(t, seed): trial_path(cache, asked, trial, seed) for t, trial in enumerate(trials) for seed in seeds}
    missing = {
        seed: [(trial, paths[t, seed]) for t, trial in enumerate(trials) if not paths[t, seed].is_file()]
        for seed in seeds
    }
    wanted = {seed: rest for seed, rest in missing.items() if rest}
    if jobs <= 1:
        for seed, rest in wanted.items():
            _run_seed(split, rest, seed, report)
    elif wanted:
        _run_seeds_at_once(load_split, wanted, jobs, report)
    return [TrialResult.read(path) for path in paths.values()]


def _run_seed(
    split: CategorySplit, trials: Sequence[tuple[Trial, Path]], seed: int, report: Callable[[str], None]
) -> None:
    shared = SharedTrainings()
    for trial, path in trials:
        started = time.perf_counter()
        with limited_threads(1):
            answers = trial.run(split, seed, shared)
        found = TrialResult(trial.name, seed, time.perf_counter() - started, answers)
        found.write(path)
        report(f"{trial.name}, seed {seed}: {found.seconds:.1f} s")


def _run_seeds_at_once(
    load_split: Callable[[], CategorySplit],
    wanted: Mapping[int, Sequence[tuple[Trial, Path]]],
    jobs: int,
    report: Callable[[str], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    lines = context.SimpleQueue()
    start = (load_split, lines)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=start) as pool:
        running = {pool.submit(_run_in_worker, rest, seed) for seed, rest in wanted.items()}
        while running:
            done, running = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            while not lines.empty():
                report(lines.get())
            for one in done:
                one.result()


_worker: dict[str, Any] = {}
"""Split of a worker process, loaded once, and where it reports to."""


def _start_worker(load_split: Callable[[], CategorySplit], lines: SimpleQueue[str]) -> None:
    _worker["split"], _worker["lines"] = load_split(), lines


def _run_in_worker(trials: Sequence[tuple[Trial, Path]], seed: int) -> None:
    _run_seed(_worker["split"], trials, seed, _worker["lines"].put)
