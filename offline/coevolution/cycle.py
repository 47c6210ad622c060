"""One cycle of the periodic collaborative optimisation: each LLM is corrected by what the other, and the users, say."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from serendipity.groups.model import NOVELTY, RELEVANCE
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.dpo import optimise
from serendipity.offline.coevolution.examples import (
    RelevanceExample,
    Renderer,
    drop_facts,
    known_before,
    relevance_example,
)
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.preferences import Told, as_tokens, candidates_at, preferences
from serendipity.offline.coevolution.records import InteractionRecords
from serendipity.offline.coevolution.relevance import RelevanceLlm
from serendipity.offline.coevolution.training import tune_relevance
from serendipity.offline.tuning.base_model import TINY, BaseModel

Stage = Callable[[int, str], None]
"""Told of every stage before it begins: cycle, name."""

STAGES_OF_A_CYCLE = 4
"""Stages that `run_cycle` tells of."""


@dataclass(frozen=True)
class Llms:
    """The two LLMs, in directories below one."""

    novelty: NoveltyLlm
    relevance: RelevanceLlm

    @classmethod
    def read(cls, directory: Path, config: CoevolutionConfig, base: str) -> Llms:
        """Read what `save` wrote. base: name of what they were tuned from, which tells how they are tuned on."""
        novelty = NoveltyLlm.read(directory / NOVELTY, config.style, config.threads, base)
        return cls(novelty, RelevanceLlm.read(directory / RELEVANCE, config.style, config.threads, base))

    def save(self, directory: Path) -> None:
        """Write both."""
        self.novelty.save(directory / NOVELTY)
        self.relevance.save(directory / RELEVANCE)


def run_cycle(
    llms: Llms,
    records: InteractionRecords,
    renderer: Renderer,
    config: CoevolutionConfig,
    cycle: int,
    *,
    exposures: Exposures | None = None,
    stage: Stage = lambda _cycle, _name: None,
) -> Llms:
    """Update both LLMs on a draw of the records (arXiv 2508.00450, section 4.3.3).

    Candidates come from the Novelty LLM as the last cycle left it, and are ordered by the Relevance LLM as it is now;
    then the Relevance LLM learns from what was clicked at the same records. Everything random follows from the
    configuration's seed and the cycle's number. The LLMs that are tuned whole are copied, see `dpo.optimise`.
    """
    pco = config.pco
    generator = np.random.default_rng([config.seed, 3, cycle])
    stage(cycle, "records")
    clicks = records.sample(pco.sample_share, pco.max_records, generator)
    told: list[Told] = []
    examples: list[RelevanceExample] = []
    for click in clicks.tolist():
        _, _, recent, group = known_before(records.histories, records.groups, click)
        told.append(drop_facts(group, recent, config.examples, generator))
        example = relevance_example(
            records.histories, records.groups, len(renderer.categories), config.examples, click, generator, exposures
        )
        if example is not None:
            examples.append(example)

    stage(cycle, "proposals")
    candidates = candidates_at(told, llms.novelty, llms.relevance, renderer, config.num_candidates)
    preferred = preferences(told, candidates, generator)

    stage(cycle, "novelty")
    seed = int(generator.integers(2**31))
    pairs = as_tokens(preferred, llms.novelty, renderer)
    novelty = optimise(llms.novelty.base, pairs, pco.dpo, seed=seed, threads=config.threads)

    stage(cycle, "relevance")
    relevance = _updated(llms.relevance, examples, renderer, config, int(generator.integers(2**31)))
    return Llms(replace(llms.novelty, base=novelty), relevance)


def _updated(
    relevance: RelevanceLlm, examples: list[RelevanceExample], renderer: Renderer, config: CoevolutionConfig, seed: int
) -> RelevanceLlm:
    if not examples:
        return relevance
    tuning = config.relevance_update.model_copy(update={"seed": seed, "threads": config.threads})
    base = relevance.base
    if tuning.method == "full" or (tuning.method is None and base.name == TINY):
        base = BaseModel(base.name, copy.deepcopy(base.model), base.tokenizer, base.style)
    with TemporaryDirectory(prefix="serendipity-relevance-") as scratch:
        return tune_relevance(replace(relevance, base=base), examples, renderer, Path(scratch), tuning)
