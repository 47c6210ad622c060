"""One training with one seed, kept on disk as soon as it has answered: what a killed run goes on from.

Answers are kept, not figures: measures and choices are made of them in a moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from joblib import Memory, Parallel, delayed
from joblib import hash as digest_of
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit
from serendipity.offline.towers.threads import limited_threads

Answers = Mapping[str, NDArray[np.generic]]
"""What a trial found, by name: whatever it is asked for."""


class Trial(Protocol):
    """What is run once a seed.

    name: unique among the trials of a run. configuration: everything that changes its answers besides split and seed,
    code included, JSON-able: with the name, the split and the seed it is what answers are kept by.
    """

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    @property
    def configuration(self) -> Mapping[str, object]:
        """Everything that changes its answers besides split and seed."""
        ...

    def run(self, split: CategorySplit, seed: int) -> Answers:
        """Train on split.training and answer. split.validation may be looked at to choose (epochs and the like), the
        test never."""
        ...


@dataclass(frozen=True)
class TrialResult:
    """What a trial with one seed found, and how long it took."""

    name: str
    seed: int
    seconds: float
    answers: Answers


def _say(line: str) -> None:
    print(line, flush=True)


def run_trials(
    split: CategorySplit,
    trials: Sequence[Trial],
    seeds: Sequence[int],
    directory: Path,
    jobs: int = 1,
    report: Callable[[str], object] = _say,
) -> list[TrialResult]:
    """Run with every seed what is not kept below the directory yet; returns all, trials in their order, seeds within.

    jobs: processes, one core each; where more than one, split, trials and report must be picklable. report: told of
    every result by the process that has it. A killed run loses what was being computed, no more.
    """
    kept = Memory(directory, compress=True, verbose=0).cache(_answer, ignore=["trial", "split", "report"])
    asked = fingerprint(split)
    calls = [(_facts(trial, asked), seed, trial, split, report) for trial in trials for seed in seeds]
    missing = sorted((call for call in calls if not kept.check_call_in_cache(*call)), key=lambda call: call[1])
    # Arrays are pickled, not mapped: a mapped one is read-only, which PyTorch warns of. Nothing waits in a worker: it
    # would go on with it after this process was killed.
    Parallel(jobs, max_nbytes=None, pre_dispatch="n_jobs", batch_size=1)(delayed(kept)(*call) for call in missing)
    return [kept(*call) for call in calls]


def fingerprint(split: CategorySplit) -> str:
    """Digest the clicks trained on and the episodes."""
    episodes = [(asked.users, asked.targets, repr(asked.recent)) for asked in (split.validation, split.test)]
    training = split.training
    return str(digest_of([split.catalogue.categories, training.items, training.times, episodes]))


def _facts(trial: Trial, split: str) -> str:
    facts = {"name": trial.name, "split": split, "configuration": dict(trial.configuration)}
    return json.dumps(facts, sort_keys=True, default=str)


def _answer(
    facts: str,  # noqa: ARG001 - with the seed, what joblib keeps the result by
    seed: int,
    trial: Trial,
    split: CategorySplit,
    report: Callable[[str], object],
) -> TrialResult:
    # joblib forgets all results when the text of this function changes.
    started = time.perf_counter()
    with limited_threads(1):
        answers = trial.run(split, seed)
    found = TrialResult(trial.name, seed, time.perf_counter() - started, answers)
    report(f"{trial.name}, seed {seed}: {found.seconds:.1f} s")
    return found
