"""The whole method in memory: both LLMs tuned, then correcting each other, ready to make lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.lists import AlignedCategory, aligned_list, alignment
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.curves import Judge, Panel
from serendipity.offline.coevolution.cycle import Llms, Stage
from serendipity.offline.coevolution.examples import (
    RelevanceExample,
    Renderer,
    novelty_examples,
    relevance_examples,
)
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.loop import CycleReport, Loop
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.preferences import Told, candidates_at
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import (
    choose_threshold,
    fit_platt,
    score_pairs,
    tune_novelty,
    tune_relevance,
)
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_VALIDATION_UNCLICKED = 4
_ASKED_AT_ONCE = 4_096
"""Keys whose prompts are held at once: with ten candidates each some 50 MB."""


class Groups(Protocol):
    """What is asked of a group model."""

    @property
    def profiles(self) -> Sequence[str]:
        """Textual profiles by group id."""

    def click_groups(self, histories: Histories) -> NDArray[np.int32]:
        """Tell the group of the user strictly before each click: [n clicks]."""


@dataclass(frozen=True)
class Coevolution:
    """Both LLMs after a cycle, and how their answers become lists. generation: the cycle, 0 after the tuning."""

    novelty: NoveltyLlm
    relevance: RelevanceLlm
    renderer: Renderer
    scale: float
    offset: float
    threshold: float
    generation: int
    num_candidates: int

    @property
    def llms(self) -> Llms:
        """The two LLMs."""
        return Llms(self.novelty, self.relevance)

    def lists(self, group_ids: Sequence[int], recent: Sequence[Sequence[int]]) -> list[list[AlignedCategory]]:
        """List the novel categories for groups and the latest categories (numbers, newest first), best aligned first.

        No list holds a category that was told. Equal questions are asked once.
        """
        told: list[Told] = [
            (int(group), tuple(int(number) for number in numbers))
            for group, numbers in zip(group_ids, recent, strict=True)
        ]
        lists: dict[Told, list[AlignedCategory]] = {}
        distinct = sorted(set(told))  # of one group together: they share a profile
        for at in range(0, len(distinct), _ASKED_AT_ONCE):
            some = distinct[at : at + _ASKED_AT_ONCE]
            found = candidates_at(some, self.novelty, self.relevance, self.renderer, self.num_candidates)
            for key, row in found.items():
                lists[key] = aligned_list(
                    [self.renderer.categories[candidate.category - 1] for candidate in row],
                    [alignment(candidate.score, self.scale, self.offset) for candidate in row],
                    self.threshold,
                )
        return [lists[key] for key in told]


def coevolve(
    histories: Histories,
    catalogue: Catalogue,
    group_model: Groups,
    config: CoevolutionConfig,
    *,
    seed: int | None = None,
    with_profile: bool = True,
    with_recent: bool = True,
    exposures: Exposures | None = None,
    start: Coevolution | None = None,
    click_groups: NDArray[np.int32] | None = None,
    on_cycle: Callable[[Coevolution, CycleReport], None] | None = None,
    stage: Stage = lambda _cycle, _name: None,
) -> Coevolution:
    """Tune both LLMs on histories, run config.pco.cycles cycles, and return what they came to; nothing is written.

    histories: every click may be learned from, but of validation users (by hash), who choose normalisation and
    threshold. seed: of everything, instead of the configuration's. with_profile, with_recent: False for the ablations.
    start: LLMs tuned before, of the same histories and seed; they are left as they were where all weights are tuned.
    click_groups: what the group model gives, where the caller has it. on_cycle: called after the tuning and after
    each cycle. Raises ValueError when the histories are too short to make examples.
    """
    if seed is not None:
        examples = config.examples.model_copy(update={"seed": seed})
        config = config.model_copy(update={"seed": seed, "examples": examples})
    groups = group_model.click_groups(histories) if click_groups is None else click_groups
    renderer = Renderer(group_model.profiles, catalogue.categories, config.style, with_profile, with_recent)
    held_out = validation_pairs(histories, groups, len(catalogue.categories), config, exposures)
    if start is None:
        start = tune_llms(histories, groups, renderer, held_out, config, exposures=exposures)
    records = InteractionRecords.of(histories, groups, config.examples)
    panel = Panel.of(
        InteractionRecords.of(histories, groups, config.examples, split="validation"),
        config.pco.panel,
        config.seed,
    )
    loop = Loop(
        records, panel, Judge(start.relevance, start.scale, start.offset), renderer, config, exposures, start.generation
    )

    def after(llms: Llms, report: CycleReport) -> None:
        if on_cycle is not None:
            on_cycle(normalise_scores(llms, renderer, held_out, config, report.cycle), report)

    llms, reports = loop.run(start.llms, config.pco.cycles, on_cycle=after, stage=stage)
    return normalise_scores(llms, renderer, held_out, config, reports[-1].cycle)


def tune_llms(
    histories: Histories,
    click_groups: NDArray[np.int32],
    renderer: Renderer,
    held_out: Sequence[RelevanceExample],
    config: CoevolutionConfig,
    *,
    exposures: Exposures | None = None,
    checkpoints: Path | None = None,
) -> Coevolution:
    """Tune both LLMs from their base: cycle 0. checkpoints: where a killed tuning resumes from; None: nowhere."""
    categories, profiles = list(renderer.categories), list(renderer.profiles)
    with TemporaryDirectory(prefix="serendipity-tuning-") as scratch:
        directory = checkpoints or Path(scratch)
        novelty, _ = tune_novelty(
            NoveltyLlm.open(config, categories, profiles),
            novelty_examples(histories, click_groups, config.examples),
            renderer,
            directory / "novelty",
            config.novelty_tuning,
        )
        relevance, _ = tune_relevance(
            RelevanceLlm.open(config, categories, profiles),
            relevance_examples(histories, click_groups, len(categories), config.examples, exposures=exposures),
            renderer,
            directory / "relevance",
            config.relevance_tuning,
        )
    return normalise_scores(Llms(novelty, relevance), renderer, held_out, config, 0)


def validation_pairs(
    histories: Histories,
    click_groups: NDArray[np.int32],
    num_categories: int,
    config: CoevolutionConfig,
    exposures: Exposures | None = None,
) -> list[RelevanceExample]:
    """Draw the pairs of validation users that normalisation and threshold are fitted on, few of each moment: scale
    and offset are two numbers, fitted anew after every cycle."""
    few = config.examples.model_copy(update={"unclicked": min(config.examples.unclicked, _VALIDATION_UNCLICKED)})
    return relevance_examples(histories, click_groups, num_categories, few, split="validation", exposures=exposures)


def normalise_scores(
    llms: Llms, renderer: Renderer, held_out: Sequence[RelevanceExample], config: CoevolutionConfig, generation: int
) -> Coevolution:
    """Fit scale, offset and threshold to the present Relevance LLM. Raises ValueError without validation pairs."""
    clicked, unclicked = score_pairs(llms.relevance, held_out, renderer)
    scale, offset = fit_platt(clicked, unclicked)
    threshold = choose_threshold(clicked, scale, offset, config.keep_clicked)
    return Coevolution(
        llms.novelty, llms.relevance, renderer, scale, offset, threshold, generation, config.num_candidates
    )
