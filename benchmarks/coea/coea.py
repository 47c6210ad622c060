"""CoEA (arXiv 2508.00450): groups of users, two LLMs and cycles between them, and what they say of every category.

A list depends on the user's group and C_s alone, as those that are served; what a single user clicked it cannot know.
Both of Table 2's CoEA and its ablation w/o Long are trained here, with the same groups: without it neither LLM is told
the group's profile, in any training or question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.affinity import interest_cosines
from benchmarks.coea.code_digest import code_of, code_of_package
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.trial import Answers
from serendipity.groups.lists import alignment
from serendipity.offline import coevolution, groups, tuning
from serendipity.offline.coevolution.coevolution import Coevolution, normalise_scores, tune_llms, validation_pairs
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.loop import Loop
from serendipity.offline.coevolution.preferences import Told, candidates_at
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.groups.config import GroupsConfig
from serendipity.offline.groups.group_model import GroupModel

_PACKAGES = (coevolution, groups, tuning)
"""Whose code decides the answers."""

CYCLES = (0, 6)
"""Cycles after which the LLMs are asked, to choose from: none, and a build's."""

ASKED = 20
"""Categories that the Relevance LLM is asked about at most: the Novelty LLM's best."""

WITHOUT_LONG = " w/o Long"


@dataclass(frozen=True)
class CoeaTrial:
    """Both trainings of one seed, as a build configures them. cycles: see CYCLES, ascending.

    Answers, for V of "" and WITHOUT_LONG and every number of cycles N, on "validation" and "test", E: "E noveltyNV"
    [n, C] float32, log-probabilities of the Novelty LLM over the catalogue; "E alignmentNV" the same of log alignments,
    −inf where the Relevance LLM was not asked. And those of `affinity.interest_cosines`, on the test.
    """

    groups: GroupsConfig = field(default_factory=GroupsConfig)
    llms: CoevolutionConfig = field(default_factory=CoevolutionConfig)
    cycles: tuple[int, ...] = CYCLES
    name: str = "CoEA"

    @property
    def configuration(self) -> Mapping[str, object]:
        """Of groups and LLMs, and the code that it all follows from."""
        return {
            "groups": self.groups.model_dump(mode="json", exclude={"threads"}),
            "llms": self.llms.model_dump(mode="json", exclude={"threads"}),
            "cycles": self.cycles,
            "code": [code_of(name) for name in (__name__, interest_cosines.__module__)]
            + [code_of_package(package) for package in _PACKAGES],
        }

    def run(self, split: CategorySplit, seed: int) -> Answers:
        """Fit the groups; with the profile and without, tune both LLMs, run the cycles, and ask on the way."""
        examples = self.llms.examples.model_copy(update={"seed": seed})
        llms = self.llms.model_copy(update={"seed": seed, "examples": examples})
        model = GroupModel.fit(split.training, split.catalogue, self.groups.model_copy(update={"seed": seed}))
        click_groups = model.click_groups(split.training)
        categories = split.catalogue.categories
        held_out = validation_pairs(split.training, click_groups, len(categories), llms)
        records = InteractionRecords.of(split.training, click_groups, examples)
        answers: dict[str, NDArray[np.generic]] = {**interest_cosines(model, split, seed)}
        for with_profile, variant in ((True, ""), (False, WITHOUT_LONG)):
            renderer = Renderer(model.profiles, categories, llms.style, with_profile)
            latest = tune_llms(split.training, click_groups, renderer, held_out, llms)
            for cycles in self.cycles:
                loop = Loop(records, renderer, llms, first=latest.generation)
                tuned = loop.run(latest.llms, cycles - latest.generation)
                latest = normalise_scores(tuned, renderer, held_out, llms, cycles)
                for name, episodes in (("validation", split.validation), ("test", split.test)):
                    novelty, aligned = _asked(latest, model, episodes)
                    answers[f"{name} novelty{cycles}{variant}"] = novelty
                    answers[f"{name} alignment{cycles}{variant}"] = aligned
        return answers


def _asked(
    coevolution: Coevolution, model: GroupModel, episodes: Episodes
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ask both LLMs once for every group and C_s of the episodes, and spread the answers over the users."""
    group_ids = model.assign(episodes.histories).group_id[episodes.users].tolist()
    told: list[Told] = list(zip(group_ids, episodes.recent, strict=True))
    keys = sorted(set(told))
    renderer = coevolution.renderer
    novelty = coevolution.novelty.log_probabilities([renderer.novelty(*key) for key in keys])
    aligned = np.full(novelty.shape, -np.inf, np.float32)
    found = candidates_at(keys, coevolution.novelty, coevolution.relevance, renderer, ASKED)
    for row, key in enumerate(keys):
        for candidate in found[key]:
            value = alignment(candidate.score, coevolution.scale, coevolution.offset)
            aligned[row, candidate.category - 1] = np.log(max(value, 1e-12))
    places = {key: row for row, key in enumerate(keys)}
    rows = [places[key] for key in told]
    return novelty[rows].astype(np.float32), aligned[rows]


def listed(novelty: NDArray[np.float32], aligned: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Make the lists that are served: of the Novelty LLM's `count` best candidates the log alignments, others −inf.

    novelty, aligned: [n, C]; what was never asked about is no candidate.
    """
    proposed = np.where(np.isfinite(aligned), novelty, -np.inf)
    worst = np.sort(proposed, axis=1)[:, -min(count, proposed.shape[1])]
    found: NDArray[np.float32] = np.where(proposed >= worst[:, None], aligned, -np.inf).astype(np.float32)
    return found
