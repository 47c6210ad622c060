"""What rows of one seed have in common, trained once: groups of users, and the two LLMs before the first cycle."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit
from serendipity.offline.coevolution.coevolution import Coevolution, tune_llms, validation_pairs
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.tuning.base_model import TINY


@dataclass(frozen=True)
class TrainedGroups:
    """A group model. clicks: [n] int32, the group of the user strictly before each training click."""

    model: GroupModel
    clicks: NDArray[np.int32]


class SharedTrainings:
    """Keeps what was trained on one split, in this process; another split or process begins anew."""

    def __init__(self) -> None:
        self._split: weakref.ref[CategorySplit] | None = None
        self._groups: dict[tuple[object, ...], TrainedGroups] = {}
        self._tuned: dict[tuple[object, ...], Coevolution] = {}

    def __reduce__(self) -> tuple[type[SharedTrainings], tuple[()]]:
        return SharedTrainings, ()

    def groups(self, split: CategorySplit, config: GroupsConfig, seed: int) -> TrainedGroups:
        """Fit groups to the training clicks, with this seed instead of the configuration's."""
        self._of(split)
        config = config.model_copy(update={"seed": seed})
        key = (config.model_dump_json(),)
        if key not in self._groups:
            model = GroupModel.fit(split.training, split.catalogue, config)
            self._groups[key] = TrainedGroups(model, model.click_groups(split.training))
        return self._groups[key]

    def tuned(
        self,
        split: CategorySplit,
        groups: TrainedGroups,
        config: CoevolutionConfig,
        seed: int,
        *,
        with_profile: bool,
        with_recent: bool,
    ) -> Coevolution:
        """Tune both LLMs on the training clicks, with this seed: cycle 0. How cycles run makes no difference.

        Cycles change a base that adapters are tuned of in place, so that every caller gets one of its own.
        """
        self._of(split)
        examples = config.examples.model_copy(update={"seed": seed})
        config = config.model_copy(update={"seed": seed, "examples": examples})
        facts = (groups.model.config.model_dump_json(), config.model_dump_json(exclude={"pco"}))
        key = (*facts, with_profile, with_recent)
        if key in self._tuned:
            return self._tuned[key]
        categories = split.catalogue.categories
        renderer = Renderer(groups.model.profiles, categories, config.style, with_profile, with_recent)
        held_out = validation_pairs(split.training, groups.clicks, len(categories), config)
        found = tune_llms(split.training, groups.clicks, renderer, held_out, config)
        if config.base == TINY:
            self._tuned[key] = found
        return found

    def _of(self, split: CategorySplit) -> None:
        if self._split is None or self._split() is not split:
            self._split = weakref.ref(split)
            self._groups.clear()
            self._tuned.clear()
