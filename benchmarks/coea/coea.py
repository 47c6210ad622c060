"""CoEA and its ablations (arXiv 2508.00450, Table 2): groups of users, two LLMs, and cycles between them.

A list depends on the user's group and C_s alone, as those that are served. Rows of one seed share what they have in
common: all of them the group model, and those that tell the LLMs the same also the two LLMs before the first cycle.
The row that comes first therefore takes the time of what is shared.

CoEA          profile of the group and C_s; lists of the Novelty LLM's candidates, in the Relevance LLM's order
CoEA w/o Long   no profile is told, in any training or question
CoEA w/o Short  C_s is not told; it is left out of lists all the same
CoEA w/o R-LLM  no Relevance LLM: the Novelty LLM's own order, no threshold, and no cycles, which need it
CoEA w/o KL     cycles without the divergence from the cycle before, λ = 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.code_digest import code_of_package
from benchmarks.coea.coevolve import coevolve
from benchmarks.coea.comparison import Cutoffs
from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting
from benchmarks.coea.settings import llms_of
from benchmarks.coea.shared_trainings import SharedTrainings
from serendipity.groups.lists import aligned_list, alignment
from serendipity.offline import coevolution, groups, tuning
from serendipity.offline.coevolution.coevolution import Coevolution
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.preferences import Candidate, Told, candidates_at
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.tuning.base_model import TINY

_PACKAGES = (coevolution, groups, tuning)
"""Whose code decides the results."""

CYCLES = (0, 10, 20)
"""Cycles after which lists are made, to choose from."""

BREADTHS = (1.0, 1.2, 1.6, 2.0)
"""Categories the Novelty LLM is asked for, in multiples of the K that novelty is measured at, to choose from: the
fewer, the more of a list is the Novelty LLM's choice, the more, the more of it is the Relevance LLM's."""


@dataclass(frozen=True)
class Coea:
    """A row of CoEA's family.

    cycles: after which lists are made, ascending; breadths: see BREADTHS; both are chosen from on validation, as is
    whether the threshold is used. with_profile, with_recent, with_relevance: False for an ablation. shared: with
    the other rows.
    """

    name: str = "CoEA"
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    llms: CoevolutionConfig = field(default_factory=CoevolutionConfig)
    cycles: tuple[int, ...] = CYCLES
    breadths: tuple[float, ...] = BREADTHS
    with_profile: bool = True
    with_recent: bool = True
    with_relevance: bool = True
    shared: SharedTrainings = field(default_factory=SharedTrainings, repr=False, compare=False)
    family: Family = "coea"

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be run."""
        if not self.cycles or list(self.cycles) != sorted(set(self.cycles)) or self.cycles[0] < 0:
            raise ValueError(f"{self.name}: cycles: found {self.cycles}, expected some, ascending, from 0")

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Cycles, breadth and whether the threshold is used."""
        if not self.with_relevance:
            return ({},)
        return tuple(
            {"cycles": cycles, "breadth": breadth, "threshold": threshold}
            for cycles in self.cycles
            for breadth in self.breadths
            for threshold in (0, 1)
        )

    @property
    def configuration(self) -> Mapping[str, object]:
        """Of groups and LLMs, what is left out, and the code that it all follows from."""
        return {
            "groups": self.groups.model_dump(mode="json", exclude={"threads"}),
            "llms": self.llms.model_dump(mode="json", exclude={"threads"}),
            "without": [self.with_profile, self.with_recent, self.with_relevance],
            "code": [code_of_package(package) for package in _PACKAGES],
        }

    def fit(self, split: CategorySplit, seed: int) -> FittedCoea:
        """Fit the groups, tune both LLMs, and run the cycles, keeping the LLMs after each number that is asked for.

        Of a base that adapters are tuned of there is one state at a time: what it lists for the episodes of the split
        is kept instead, and for no others.
        """
        groups = self.shared.groups(split, self.groups, seed)
        start = self.shared.tuned(
            split, groups, self.llms, seed, with_profile=self.with_profile, with_recent=self.with_recent
        )
        fitted = FittedCoea(groups.model, Cutoffs.of(split).rank, max(self.breadths))
        asked = () if self.llms.base == TINY else (split.validation, split.test)
        fitted.keep(0, start, asked if self.with_relevance and 0 in self.cycles else ())
        if self.with_relevance:
            latest = start
            for cycles in self.cycles:
                if cycles > latest.generation:
                    pco = self.llms.pco.model_copy(update={"cycles": cycles - latest.generation})
                    latest = coevolve(
                        split.training,
                        split.catalogue,
                        groups.model,
                        self.llms.model_copy(update={"pco": pco}),
                        seed=seed,
                        with_profile=self.with_profile,
                        with_recent=self.with_recent,
                        start=latest,
                        click_groups=groups.clicks,
                    )
                    fitted.keep(cycles, latest, asked)
        return fitted


class FittedCoea:
    """LLMs by number of cycles, and what they answered so far. length: K; broadest: multiple of it that the Novelty LLM
    is asked for at most."""

    def __init__(self, groups: GroupModel, length: int, broadest: float) -> None:
        self.groups = groups
        self.by_cycles: dict[int, Coevolution] = {}
        self._length = length
        self._most = round(broadest * length)
        self._proposed: dict[tuple[int, Told], list[Candidate]] = {}

    def keep(self, cycles: int, coevolution: Coevolution, asked: Sequence[Episodes] = ()) -> None:
        """Keep the LLMs after so many cycles, and what they answer for these episodes."""
        self.by_cycles[cycles] = coevolution
        for episodes in asked:
            self._ask(cycles, self._told(episodes))

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Score what is on the list by its place; empty settings ask for the Novelty LLM's own order."""
        told = self._told(episodes)
        if not setting:
            return self._by_novelty(told)
        cycles, count = int(setting["cycles"]), round(setting["breadth"] * self._length)
        coevolution = self.by_cycles[cycles]
        names = coevolution.renderer.categories
        numbers = {name: number for number, name in enumerate(names)}
        threshold = coevolution.threshold if setting["threshold"] else 0.0
        self._ask(cycles, told)
        rows = {}
        for key in dict.fromkeys(told):
            found = self._proposed[cycles, key][:count]
            listed = aligned_list(
                [names[candidate.category - 1] for candidate in found],
                [alignment(candidate.score, coevolution.scale, coevolution.offset) for candidate in found],
                threshold,
            )
            rows[key] = by_place([numbers[aligned.category] for aligned in listed], len(names))
        return np.stack([rows[key] for key in told])

    def _told(self, episodes: Episodes) -> list[Told]:
        groups = self.groups.assign(episodes.histories).group_id[episodes.users].tolist()
        return list(zip(groups, episodes.recent, strict=True))

    def _ask(self, cycles: int, told: Sequence[Told]) -> None:
        new = [key for key in dict.fromkeys(told) if (cycles, key) not in self._proposed]
        if new:
            of = self.by_cycles[cycles]
            if of.novelty.base.name != TINY and cycles != max(self.by_cycles):
                raise ValueError(f"cycles {cycles}: found {len(new)} new lists, expected those of the split alone")
            found = candidates_at(new, of.novelty, of.relevance, of.renderer, self._most)
            self._proposed |= {(cycles, key): row for key, row in found.items()}

    def _by_novelty(self, told: Sequence[Told]) -> NDArray[np.float32]:
        start = self.by_cycles[0]
        distinct = list(dict.fromkeys(told))
        found = start.novelty.log_probabilities([start.renderer.novelty(*key) for key in distinct])
        places = {key: place for place, key in enumerate(distinct)}
        return found[[places[key] for key in told]]


def by_place(columns: Sequence[int], num_categories: int) -> NDArray[np.float32]:
    """Score a list by places, best first, so that its order is kept whatever ties: [C] float32, −inf off the list."""
    scores = np.full(num_categories, -np.inf, np.float32)
    scores[np.asarray(columns, np.int64)] = -np.arange(len(columns), dtype=np.float32)
    return scores


def methods(base: str = TINY) -> tuple[Method, ...]:
    """CoEA and its four ablations, sharing trainings. base: of both LLMs."""
    shared = SharedTrainings()
    llms = llms_of(base)
    dpo = llms.pco.dpo.model_copy(update={"kl_weight": 0.0})
    without_kl = llms.model_copy(update={"pco": llms.pco.model_copy(update={"dpo": dpo})})
    return (
        Coea(llms=llms, shared=shared),
        Coea("CoEA w/o Long", llms=llms, with_profile=False, shared=shared),
        Coea("CoEA w/o Short", llms=llms, with_recent=False, shared=shared),
        Coea("CoEA w/o R-LLM", llms=llms, with_relevance=False, shared=shared),
        Coea("CoEA w/o KL", llms=without_kl, shared=shared),
    )
