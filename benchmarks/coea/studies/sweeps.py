"""Figure 6 at small scale: quality and novelty on validation while one parameter is moved and all others stay.

Swept: the threshold of the sequence filter (eq. 3), λ (eq. 17), residual quantiser layers, number of groups, as in the
paper; the threshold of the alignment (eq. 14), which it leaves open; and how many clicks the Relevance LLM learns from.
Small scale is SMALL_…: less to learn from and fewer rounds than the table's rows, the same for all points, so that
figures compare with each other alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.comparison import Cutoffs
from benchmarks.coea.metrics import mean, measures
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.shared_trainings import SharedTrainings
from benchmarks.coea.studies.variant import Variant, group_ids, listed
from benchmarks.coea.trial import Answers, TrialResult

SMALL_NOVELTY = 6_000
SMALL_RELEVANCE = 4_000
SMALL_EPOCHS = 1
"""Of the long-term interest's training."""
SMALL_ROUNDS = 6

FILTER_THRESHOLDS = (1, 2, 5, 10)
KL_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
QUANTIZERS = (1, 2, 4, 8)
GROUPS = (5, 20, 50, 100, 200)
RELEVANCE_CLICKS = (1_000, 16_000)
ALIGNMENTS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Values, beside which each parameter's default is always tried."""


@dataclass(frozen=True)
class SweepTrial:
    """One point of the sweeps with one seed. Answers: "lists", [thresholds, n, K] int16 columns on validation."""

    name: str
    variant: Variant
    thresholds: tuple[float, ...] = (0.0,)

    @property
    def configuration(self) -> Mapping[str, object]:
        """The variant's, and the thresholds of the alignment."""
        return {**self.variant.configuration, "thresholds": list(self.thresholds)}

    def run(self, split: CategorySplit, seed: int, shared: SharedTrainings) -> Answers:
        """Train, and list with each threshold."""
        model, coevolution = self.variant.coevolve(split, seed, shared)
        groups = group_ids(model, split.validation)
        lists = [listed(coevolution, groups, split.validation, threshold) for threshold in self.thresholds]
        return {"lists": np.stack(lists)}


@dataclass(frozen=True)
class Sweep:
    """A parameter and the trial of each value. default: place of the value that is the default; at: place in a trial's
    thresholds, by value."""

    parameter: str
    values: tuple[float, ...]
    default: int
    trials: tuple[SweepTrial, ...]
    at: tuple[int, ...]


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep: quality (C-H@hit), novelty (NCP@rank) and length, the mean number of categories among the
    first K; [seeds, values] each."""

    sweep: Sweep
    cutoffs: Cutoffs
    quality: NDArray[np.float64]
    novelty: NDArray[np.float64]
    length: NDArray[np.float64]


def small(variant: Variant) -> Variant:
    """Cut a variant down to the small scale; what it learns from, where that is more."""
    interest, examples = variant.groups.interest, variant.llms.examples
    epochs = min(interest.epochs, SMALL_EPOCHS)
    most = {
        "max_novelty": min(examples.max_novelty, SMALL_NOVELTY),
        "max_relevance": min(examples.max_relevance, SMALL_RELEVANCE),
    }
    return replace(
        variant,
        groups=variant.groups.model_copy(update={"interest": interest.model_copy(update={"epochs": epochs})}),
        llms=variant.llms.model_copy(update={"examples": examples.model_copy(update=most)}),
    ).with_cycles(SMALL_ROUNDS)


def sweeps(base: Variant) -> tuple[Sweep, ...]:
    """Make all sweeps around a variant, whose own point they share."""
    centre = SweepTrial("sweep of nothing", base, ALIGNMENTS)

    def sweep(parameter: str, tried: Sequence[float], own: float, move: Callable[[float], Variant]) -> Sweep:
        values = tuple(sorted({*tried, own}))
        trials = tuple(
            centre if value == own else SweepTrial(f"sweep of {parameter} {value:g}", move(value)) for value in values
        )
        return Sweep(parameter, values, values.index(own), trials, (0,) * len(values))

    groups = base.groups

    def filtered(value: float) -> Variant:
        sequence = groups.sequence.model_copy(update={"threshold": int(value)})
        return replace(base, groups=groups.model_copy(update={"sequence": sequence}))

    def layered(value: float) -> Variant:
        quantizer = groups.quantizer.model_copy(update={"num_quantizers": int(value)})
        return replace(base, groups=groups.model_copy(update={"quantizer": quantizer}))

    def divided(value: float) -> Variant:
        return replace(base, groups=groups.model_copy(update={"num_groups": int(value)}))

    def taught(value: float) -> Variant:
        examples = base.llms.examples.model_copy(update={"max_relevance": int(value)})
        return replace(base, llms=base.llms.model_copy(update={"examples": examples}))

    weight = base.llms.pco.dpo.kl_weight
    aligned = Sweep(
        "threshold of the alignment", ALIGNMENTS, 0, (centre,) * len(ALIGNMENTS), tuple(range(len(ALIGNMENTS)))
    )
    return (
        sweep("λ", KL_WEIGHTS, weight, base.with_kl_weight),
        aligned,
        sweep("threshold of the sequence filter", FILTER_THRESHOLDS, groups.sequence.threshold, filtered),
        sweep("quantiser layers", QUANTIZERS, groups.quantizer.num_quantizers, layered),
        sweep("groups", GROUPS, groups.num_groups, divided),
        sweep("clicks of the Relevance LLM", RELEVANCE_CLICKS, base.llms.examples.max_relevance, taught),
    )


def trials(found: Sequence[Sweep]) -> tuple[SweepTrial, ...]:
    """List every trial of the sweeps once."""
    return tuple({trial.name: trial for sweep in found for trial in sweep.trials}.values())


def study(found: Sequence[Sweep], results: Sequence[TrialResult], split: CategorySplit) -> tuple[SweepResult, ...]:
    """Measure every point of every sweep."""
    by_name: dict[str, list[TrialResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return tuple(_measured(sweep, by_name, split) for sweep in found)


def _measured(sweep: Sweep, by_name: Mapping[str, Sequence[TrialResult]], split: CategorySplit) -> SweepResult:
    cutoffs = Cutoffs.of(split)
    quality, novelty, length = [], [], []
    for trial, at in zip(sweep.trials, sweep.at, strict=True):
        tops = [found.answers["lists"][at].astype(np.int64) for found in by_name[trial.name]]
        hit = [measures(top, split.validation, split, cutoffs.hit)[f"C-H@{cutoffs.hit}"] for top in tops]
        new = [measures(top, split.validation, split, cutoffs.rank)[f"NCP@{cutoffs.rank}"] for top in tops]
        quality.append([mean(values) for values in hit])
        novelty.append([mean(values) for values in new])
        length.append([float((top[:, : cutoffs.rank] >= 0).sum(axis=1).mean()) for top in tops])
    return SweepResult(sweep, cutoffs, np.array(quality).T, np.array(novelty).T, np.array(length).T)
