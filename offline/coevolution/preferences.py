"""Preference pairs: what the Novelty LLM proposes, ordered by what the Relevance LLM gives for it (eq. 15 and 16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serendipity.offline.coevolution.dpo import TokenPair
from serendipity.offline.coevolution.examples import Renderer
from serendipity.offline.coevolution.novelty import NoveltyLlm
from serendipity.offline.coevolution.relevance import RelevanceLlm

Told = tuple[int, tuple[int, ...]]
"""What the LLMs are told: group, and numbers of the latest categories, newest first."""


@dataclass(frozen=True)
class Candidate:
    """A proposal. category: number; log_probability: the Novelty LLM's; score: f of the Relevance LLM."""

    category: int
    log_probability: float
    score: float


@dataclass(frozen=True)
class Preference:
    """c_w and c_l at what was told: numbers of categories, of which the first is given more by the Relevance LLM."""

    told: Told
    chosen: int
    rejected: int


def candidates_at(
    told: Sequence[Told], novelty: NoveltyLlm, relevance: RelevanceLlm, renderer: Renderer, count: int
) -> dict[Told, list[Candidate]]:
    """Ask the Novelty LLM for `count` categories outside those told, most probable first, and score them.

    What is told more than once is asked once.
    """
    distinct = list(dict.fromkeys(told))
    numbers = {name: number for number, name in enumerate(renderer.categories, 1)}
    ranked = novelty.rank(
        [renderer.novelty(group, recent) for group, recent in distinct],
        count,
        [renderer.names(recent) for _, recent in distinct],
    )
    prompts = [
        renderer.relevance(group, recent, numbers[name])
        for (group, recent), row in zip(distinct, ranked, strict=True)
        for name, _ in row
    ]
    scores = iter(relevance.score(prompts).tolist())
    return {
        key: [Candidate(numbers[name], value, next(scores)) for name, value in row]
        for key, row in zip(distinct, ranked, strict=True)
    }


def preferences(
    told: Sequence[Told], candidates: dict[Told, list[Candidate]], generator: np.random.Generator
) -> list[Preference]:
    """Prefer at each record the best scored of its candidates to another, drawn as the Novelty LLM would answer it.

    The best one alone is preferred: pairs of any two would teach the Novelty LLM the Relevance LLM's whole order, and
    with it what is familiar. The other is drawn with the Novelty LLM's own probability, a choice of ours: what it
    always proposes makes room, what it seldom does is left alone. Equals never make a pair.
    """
    found = []
    for key in told:
        best = max(candidates[key], key=lambda candidate: candidate.score, default=None)
        others = [other for other in candidates[key] if best is not None and other.score < best.score]
        # The largest of log p + Gumbel noise is a draw.
        noise = generator.gumbel(size=len(others)).tolist()
        if best is not None and others:
            drawn = max(zip(others, noise, strict=True), key=lambda pair: pair[0].log_probability + pair[1])[0]
            found.append(Preference(key, best.category, drawn.category))
    return found


def as_tokens(pairs: Sequence[Preference], novelty: NoveltyLlm, renderer: Renderer) -> list[TokenPair]:
    """Turn preferences into tokens: prompts as they are asked, answers as they are written, with their end."""
    distinct = list(dict.fromkeys(pair.told for pair in pairs))
    prompts = novelty.prompt_tokens([renderer.novelty(group, recent) for group, recent in distinct])
    by_told = dict(zip(distinct, prompts, strict=True))
    answers, end = novelty.answers, novelty.base.tokenizer.eos_token_id
    return [
        TokenPair(by_told[pair.told], [*answers[pair.chosen - 1], end], [*answers[pair.rejected - 1], end])
        for pair in pairs
    ]
