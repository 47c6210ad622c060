"""Both LLMs tuned, and what their answers become once the scores are normalised: lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.groups.lists import AlignedCategory, aligned_list, alignment
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.cycle import Llms
from serendipity.offline.coevolution.examples import (
    RelevanceExample,
    Renderer,
    novelty_examples,
    relevance_examples,
)
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.preferences import Told, candidates_at
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import (
    choose_threshold,
    fit_platt,
    score_pairs,
    tune_novelty,
    tune_relevance,
)
from serendipity.offline.logs.histories import Histories

_VALIDATION_UNCLICKED = 4
_ASKED_AT_ONCE = 4_096
"""Keys whose prompts are held at once: with ten candidates each some 50 MB."""


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


def tune_llms(
    histories: Histories,
    click_groups: NDArray[np.int32],
    renderer: Renderer,
    held_out: Sequence[RelevanceExample],
    config: CoevolutionConfig,
    *,
    exposures: Exposures | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> Coevolution:
    """Tune both LLMs from their base: cycle 0. checkpoints: where a killed tuning resumes from; None: nowhere."""
    categories, profiles = list(renderer.categories), list(renderer.profiles)
    with TemporaryDirectory(prefix="serendipity-tuning-") as scratch:
        directory = checkpoints or Path(scratch)
        novelty = tune_novelty(
            NoveltyLlm.open(config, categories, profiles),
            novelty_examples(histories, click_groups, config.examples),
            renderer,
            directory / "novelty",
            config.novelty_tuning,
            progress,
        )
        relevance = tune_relevance(
            RelevanceLlm.open(config, categories, profiles),
            relevance_examples(histories, click_groups, len(categories), config.examples, exposures=exposures),
            renderer,
            directory / "relevance",
            config.relevance_tuning,
            progress,
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
