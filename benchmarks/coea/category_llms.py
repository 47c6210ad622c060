"""Novelty and Relevance LLM without groups: what the LLM baselines are tuned from, on the examples that ours are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.code_digest import code_of, code_of_package
from benchmarks.coea.protocol import CategorySplit
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.offline import coevolution, tuning
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.examples import NoveltyExample, Renderer, novelty_examples, relevance_examples
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import tune_novelty, tune_relevance
from serendipity.offline.logs.histories import Histories

Recent = tuple[int, ...]
"""C_s: numbers of the latest distinct categories, newest first."""


def code() -> list[str]:
    """Digest the code that such LLMs follow from, for the names of kept results."""
    return [code_of(__name__), *(code_of_package(package) for package in (coevolution, tuning))]


def seeded(config: CoevolutionConfig, seed: int) -> CoevolutionConfig:
    """Let the seed decide weights, trainings and which examples are drawn."""
    examples = config.examples.model_copy(update={"seed": seed})
    return config.model_copy(update={"seed": seed, "examples": examples})


def without_groups(split: CategorySplit, config: CoevolutionConfig) -> Renderer:
    """Write prompts that tell the latest categories alone."""
    return Renderer([""], split.catalogue.categories, config.style, with_profile=False)


def first_occurrences(split: CategorySplit, config: CoevolutionConfig) -> list[NoveltyExample]:
    """Draw the examples of the Novelty LLM from the training clicks."""
    return novelty_examples(split.training, _no_groups(split.training), config.examples)


def tuned_novelty(split: CategorySplit, config: CoevolutionConfig) -> NoveltyLlm:
    """Tune a Novelty LLM on first occurrences."""
    llm = NoveltyLlm.open(config, split.catalogue.categories, [])
    examples = first_occurrences(split, config)
    with tempfile.TemporaryDirectory() as checkpoints:
        return tune_novelty(llm, examples, without_groups(split, config), Path(checkpoints), config.novelty_tuning)[0]


def tuned_relevance(split: CategorySplit, config: CoevolutionConfig) -> RelevanceLlm:
    """Tune a Relevance LLM on clicked and unclicked categories."""
    llm = RelevanceLlm.open(config, split.catalogue.categories, [])
    pairs = relevance_examples(split.training, _no_groups(split.training), split.num_categories, config.examples)
    with tempfile.TemporaryDirectory() as checkpoints:
        return tune_relevance(llm, pairs, without_groups(split, config), Path(checkpoints), config.relevance_tuning)[0]


@dataclass
class PerList:
    """Answers an LLM gives once per C_s, however many users share it and however often it is asked for.

    ask: C_s's not answered yet → [n, C].
    """

    ask: Callable[[Sequence[Recent]], NDArray[np.float32]]
    _known: dict[Hashable, NDArray[np.float32]] = field(default_factory=dict)

    def __call__(self, recent: Sequence[Recent]) -> NDArray[np.float32]:
        """Give the answers to some C_s's, in their order: [n, C]."""
        missing = [told for told in dict.fromkeys(recent) if told not in self._known]
        if missing:
            self._known.update(zip(missing, self.ask(missing), strict=True))
        return np.stack([self._known[told] for told in recent])


def _no_groups(histories: Histories) -> NDArray[np.int32]:
    return np.full(len(histories.items), DEFAULT_GROUP, np.int32)
