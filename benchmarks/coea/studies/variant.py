"""CoEA with some configuration, trained with what trials of one seed share, and the lists it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea import studies
from benchmarks.coea.code_digest import code_of_package
from benchmarks.coea.coevolve import coevolve
from benchmarks.coea.metrics import LIST_LENGTH, NO_COLUMN
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.shared_trainings import SharedTrainings
from serendipity.offline import coevolution, groups, tuning
from serendipity.offline.coevolution.coevolution import Coevolution
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.group_model import GroupModel

_PACKAGES = (studies, coevolution, groups, tuning)
"""Whose code decides the answers."""


@dataclass(frozen=True)
class Variant:
    """A configuration of CoEA. with_profile: False: neither LLM is told the group's profile (w/o Long)."""

    groups: GroupsConfig = field(default_factory=GroupsConfig)
    llms: CoevolutionConfig = field(default_factory=CoevolutionConfig)
    with_profile: bool = True

    @property
    def configuration(self) -> Mapping[str, object]:
        """Everything in it that changes results, and the code that they follow from."""
        return {
            "groups": self.groups.model_dump(mode="json", exclude={"threads"}),
            "llms": self.llms.model_dump(mode="json", exclude={"threads"}),
            "with_profile": self.with_profile,
            "code": [code_of_package(package) for package in _PACKAGES],
        }

    def with_kl_weight(self, weight: float) -> Variant:
        """Give the variant whose cycles weigh the divergence by λ = weight."""
        dpo = self.llms.pco.dpo.model_copy(update={"kl_weight": weight})
        return self._with_pco({"dpo": dpo})

    def with_cycles(self, cycles: int) -> Variant:
        """Give the variant that runs so many cycles."""
        return self._with_pco({"cycles": cycles})

    def coevolve(
        self,
        split: CategorySplit,
        seed: int,
        shared: SharedTrainings,
        on_cycle: Callable[[GroupModel, Coevolution], None] | None = None,
    ) -> tuple[GroupModel, Coevolution]:
        """Fit groups, tune both LLMs and run the cycles, on the training clicks. on_cycle: also called before the
        first."""
        groups = shared.groups(split, self.groups, seed)
        start = shared.tuned(split, groups, self.llms, seed, with_profile=self.with_profile, with_recent=True)
        found = coevolve(
            split.training,
            split.catalogue,
            groups.model,
            self.llms,
            seed=seed,
            with_profile=self.with_profile,
            start=start,
            click_groups=groups.clicks,
            on_cycle=None if on_cycle is None else lambda llms: on_cycle(groups.model, llms),
        )
        return groups.model, found

    def _with_pco(self, update: Mapping[str, object]) -> Variant:
        pco = self.llms.pco.model_copy(update=update)
        return replace(self, llms=self.llms.model_copy(update={"pco": pco}))


def group_ids(model: GroupModel, episodes: Episodes) -> NDArray[np.int32]:
    """Tell the groups of the episodes' users: [n] int32."""
    found: NDArray[np.int32] = model.assign(episodes.histories).group_id[episodes.users]
    return found


def listed(
    coevolution: Coevolution, groups: NDArray[np.int32], episodes: Episodes, threshold: float = 0.0
) -> NDArray[np.int16]:
    """Give every user the list of the group and C_s: [n, LIST_LENGTH] columns, as `metrics.ranked`.

    threshold: of the alignment, instead of the one fitted to each Relevance LLM, so that lists of different LLMs are
    as long; 0: everything the Novelty LLM proposes is listed.
    """
    lists = replace(coevolution, threshold=threshold).lists(groups.tolist(), episodes.recent)
    return _columns([[one.category for one in found] for found in lists], coevolution)


def proposed(coevolution: Coevolution, groups: NDArray[np.int32], episodes: Episodes) -> NDArray[np.int16]:
    """Give every user what the Novelty LLM alone puts first: [n, LIST_LENGTH] columns, as `listed`."""
    renderer = coevolution.renderer
    told = list(zip(groups.tolist(), episodes.recent, strict=True))
    distinct = list(dict.fromkeys(told))
    found = coevolution.novelty.rank(
        [renderer.novelty(group, recent) for group, recent in distinct],
        LIST_LENGTH,
        [renderer.names(recent) for _, recent in distinct],
    )
    lists = {key: [name for name, _ in row] for key, row in zip(distinct, found, strict=True)}
    return _columns([lists[key] for key in told], coevolution)


def entropy(coevolution: Coevolution, groups: NDArray[np.int32], episodes: Episodes) -> float:
    """Give the mean entropy, in nats, of the Novelty LLM's distribution over the catalogue at the episodes."""
    told = Counter(zip(groups.tolist(), episodes.recent, strict=True))
    logs = coevolution.novelty.log_probabilities([coevolution.renderer.novelty(*key) for key in told])
    entropies = -np.where(np.isfinite(logs), np.exp(logs) * logs, 0.0).sum(axis=1)
    return float(np.average(entropies, weights=list(told.values())))


def _columns(lists: Sequence[Sequence[str]], coevolution: Coevolution) -> NDArray[np.int16]:
    columns = {name: column for column, name in enumerate(coevolution.renderer.categories)}
    found = np.full((len(lists), LIST_LENGTH), NO_COLUMN, np.int16)
    for row, names in zip(found, lists, strict=True):
        first = names[:LIST_LENGTH]
        row[: len(first)] = [columns[name] for name in first]
    return found
