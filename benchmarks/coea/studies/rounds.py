"""Figure 4: quality and novelty from round to round of the cycles, with and without the divergence (λ = 0).

Both curves of a seed begin at the same two LLMs. After every round the lists of everybody asked for are kept, and what
the Novelty LLM alone would have put first: cycles change the former through both LLMs, the divergence holds the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.comparison import Cutoffs
from benchmarks.coea.metrics import mean, measures
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.shared_trainings import SharedTrainings
from benchmarks.coea.studies.paired import PairedDifference
from benchmarks.coea.studies.variant import Variant, entropy, group_ids, listed, proposed
from benchmarks.coea.trial import Answers, TrialResult
from serendipity.offline.coevolution.coevolution import Coevolution
from serendipity.offline.groups.group_model import GroupModel

ROUNDS = 30
"""Rounds of the paper's figure up to where its curves part; it goes on to 60."""

WITH_KL, WITHOUT_KL = "CoEA", "CoEA w/o KL"

EPISODES = ("validation", "test")


@dataclass(frozen=True)
class RoundsTrial:
    """One curve of one seed: lists after 0 … variant.llms.pco.cycles rounds.

    Answers, of "validation" and "test": E [rounds + 1, n, K] int16 columns of the lists, "E proposals" the same of the
    Novelty LLM alone; "entropy" [rounds + 1], of its distribution over the catalogue at the
    validation episodes, in nats.
    """

    name: str
    variant: Variant

    @property
    def configuration(self) -> Mapping[str, object]:
        """The variant's."""
        return self.variant.configuration

    def run(self, split: CategorySplit, seed: int, shared: SharedTrainings) -> Answers:
        """Run the rounds and ask for lists after each."""
        episodes = {"validation": split.validation, "test": split.test}
        found: dict[str, list[NDArray[np.int16]]] = {}
        entropies: list[float] = []
        groups: dict[str, NDArray[np.int32]] = {}

        def keep(model: GroupModel, coevolution: Coevolution) -> None:
            for name, asked in episodes.items():
                if name not in groups:
                    groups[name] = group_ids(model, asked)
                found.setdefault(name, []).append(listed(coevolution, groups[name], asked))
                found.setdefault(f"{name} proposals", []).append(proposed(coevolution, groups[name], asked))
            entropies.append(entropy(coevolution, groups["validation"], split.validation))

        self.variant.coevolve(split, seed, shared, keep)
        return {name: np.stack(rounds) for name, rounds in found.items()} | {"entropy": np.array(entropies)}


@dataclass(frozen=True)
class Curve:
    """A trial over its seeds: measure → [seeds, rounds + 1].

    Measures are named as in `metrics.measures`, with " of proposals" behind them for the Novelty LLM alone.
    """

    name: str
    seeds: tuple[int, ...]
    validation: Mapping[str, NDArray[np.float64]]
    test: Mapping[str, NDArray[np.float64]]
    entropy: NDArray[np.float64]
    seconds: tuple[float, ...]

    @property
    def rounds(self) -> int:
        """The last round."""
        return self.entropy.shape[1] - 1

    def of(self, episodes: str) -> Mapping[str, NDArray[np.float64]]:
        """Measures on "validation" or "test"."""
        return self.test if episodes == "test" else self.validation

    @classmethod
    def from_results(cls, results: Sequence[TrialResult], split: CategorySplit, cutoffs: Cutoffs) -> Curve:
        """Measure the lists of one trial's results. split: the one they were asked on."""
        return cls(
            results[0].name,
            tuple(found.seed for found in results),
            _measured(results, "validation", split.validation, split, cutoffs),
            _measured(results, "test", split.test, split, cutoffs),
            np.stack([found.answers["entropy"] for found in results]).astype(np.float64),
            tuple(found.seconds for found in results),
        )


@dataclass(frozen=True)
class RoundsStudy:
    """Both curves, and what late rounds say."""

    cutoffs: Cutoffs
    with_kl: Curve
    without_kl: Curve

    @property
    def curves(self) -> tuple[Curve, Curve]:
        """With and without."""
        return self.with_kl, self.without_kl

    @property
    def late(self) -> range:
        """The last third of the rounds, 20 to 30 of 30."""
        return range(2 * self.with_kl.rounds // 3, self.with_kl.rounds + 1)

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """What is reported: quality and novelty of the lists, and of the proposals."""
        quality, novelty = f"C-H@{self.cutoffs.hit}", f"NCP@{self.cutoffs.rank}"
        return quality, novelty, f"{quality} of proposals", f"{novelty} of proposals"

    def late_difference(self, episodes: str, measure: str) -> PairedDifference:
        """Compare the mean over the late rounds with the divergence to that without, paired by seed."""
        one, other = (curve.of(episodes)[measure][:, list(self.late)].mean(axis=1) for curve in self.curves)
        return PairedDifference.of(one, other)

    def late_change(self, curve: Curve, episodes: str, measure: str) -> PairedDifference:
        """Compare a curve's mean over the late rounds to its round 0."""
        values = curve.of(episodes)[measure]
        return PairedDifference.of(values[:, list(self.late)].mean(axis=1), values[:, 0])


def trials(variant: Variant, rounds: int = ROUNDS) -> tuple[RoundsTrial, RoundsTrial]:
    """Make both trials."""
    long = variant.with_cycles(rounds)
    return RoundsTrial(WITH_KL, long), RoundsTrial(WITHOUT_KL, long.with_kl_weight(0.0))


def study(results: Sequence[TrialResult], split: CategorySplit) -> RoundsStudy:
    """Measure what both trials answered."""
    cutoffs = Cutoffs.of(split)
    with_kl, without_kl = (
        Curve.from_results([found for found in results if found.name == name], split, cutoffs)
        for name in (WITH_KL, WITHOUT_KL)
    )
    return RoundsStudy(cutoffs, with_kl, without_kl)


def _measured(
    results: Sequence[TrialResult], name: str, episodes: Episodes, split: CategorySplit, cutoffs: Cutoffs
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for suffix in ("", " proposals"):
        lists = [result.answers[name + suffix].astype(np.int64) for result in results]
        for k in sorted({cutoffs.hit, cutoffs.rank}):
            rows = [[measures(top, episodes, split, k) for top in seed] for seed in lists]
            for measure in rows[0][0]:
                values = [[mean(at[measure]) for at in seed] for seed in rows]
                found[f"{measure} of proposals" if suffix else measure] = np.array(values)
    return found
