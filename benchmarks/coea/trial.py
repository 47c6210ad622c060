"""One training with one seed, kept on disk as soon as it has answered: what a killed run goes on from.

Answers are kept, not figures: measures and choices are made of them in a moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from joblib import Memory, Parallel, delayed
from joblib import hash as digest_of
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.shared_trainings import SharedTrainings
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

    def run(self, split: CategorySplit, seed: int, shared: SharedTrainings) -> Answers:
        """Train on split.training and answer. shared: with other trials of this seed."""
        ...


AnyTrial = TypeVar("AnyTrial", bound=Trial)


@dataclass(frozen=True)
class TrialResult:
    """What a trial with one seed found. seconds: its own, what it was the first to share included."""

    name: str
    seed: int
    seconds: float
    answers: Answers


def _say(line: str) -> None:
    print(line, flush=True)


def run_trials(
    split: CategorySplit,
    trials: Sequence[AnyTrial],
    seeds: Sequence[int],
    directory: Path,
    jobs: int = 1,
    report: Callable[[str], object] = _say,
    sharing: Callable[[AnyTrial], Hashable] = lambda _: None,
) -> list[TrialResult]:
    """Run with every seed what is not kept below the directory yet; returns all, trials in their order, seeds within.

    jobs: processes, one core each; where more than one, split, trials and report must be picklable. report: told of
    every result by the process that has it. sharing: trials of a seed for which it is equal run in one process, one
    after the other, so that they share what they have in common. A killed run loses what was being computed, no more.
    """
    kept = Memory(directory, compress=True, verbose=0).cache(_answer, ignore=["trial", "split", "shared", "report"])
    asked = fingerprint(split)
    calls = [(_facts(trial, asked), seed, trial) for trial in trials for seed in seeds]
    chains: dict[Hashable, list[tuple[str, int, AnyTrial]]] = {}
    for facts, seed, trial in calls:
        if not kept.check_call_in_cache(facts, seed, trial, split, None, report):
            chains.setdefault((seed, sharing(trial)), []).append((facts, seed, trial))
    # Arrays are pickled, not mapped: a mapped one is read-only, which PyTorch warns of. Nothing waits in a worker: it
    # would go on with it after this process was killed.
    parallel = Parallel(jobs, max_nbytes=None, pre_dispatch="n_jobs", batch_size=1)
    parallel(delayed(_run)(kept, chain, split, report) for chain in chains.values())
    return [kept(*call, split, SharedTrainings(), report) for call in calls]


def fingerprint(split: CategorySplit) -> str:
    """Digest the clicks trained on and the episodes."""
    episodes = [(asked.users, asked.targets, repr(asked.recent)) for asked in (split.validation, split.test)]
    training = split.training
    return str(digest_of([split.catalogue.categories, training.items, training.times, episodes]))


def _facts(trial: Trial, split: str) -> str:
    facts = {"name": trial.name, "split": split, "configuration": dict(trial.configuration)}
    return json.dumps(facts, sort_keys=True, default=str)


def _run(
    kept: Callable[..., TrialResult],
    chain: Sequence[tuple[str, int, Trial]],
    split: CategorySplit,
    report: Callable[[str], object],
) -> None:
    shared = SharedTrainings()
    for call in chain:
        kept(*call, split, shared, report)


def _answer(
    facts: str,  # noqa: ARG001 - with the seed, what joblib keeps the result by
    seed: int,
    trial: Trial,
    split: CategorySplit,
    shared: SharedTrainings,
    report: Callable[[str], object],
) -> TrialResult:
    # joblib forgets all results when the text of this function changes.
    started = time.perf_counter()
    with limited_threads(1):
        answers = trial.run(split, seed, shared)
    found = TrialResult(trial.name, seed, time.perf_counter() - started, answers)
    report(f"{trial.name}, seed {seed}: {found.seconds:.1f} s")
    return found
