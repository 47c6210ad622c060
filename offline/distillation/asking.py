"""Asking a tuned model about users as the near-line worker does: facts, hints, grounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from serendipity.interests.answer import AnswerError, read_answer
from serendipity.interests.grounding import Grounder, ground_answer
from serendipity.interests.prompt import UserFacts, render
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.distillation.examples import hints_of
from serendipity.offline.distillation.generation import generate
from serendipity.offline.interests.reasoner import Reasoner, UserContext
from serendipity.offline.interests.taxonomy import TaxonomyNode
from serendipity.offline.interests.user_facts import facts_of
from serendipity.offline.tuning.base_model import BaseModel


def told_of(
    contexts: Sequence[UserContext],
    nodes: Sequence[TaxonomyNode],
    categories: Sequence[str],
    titles: Sequence[str],
    hinting: Reasoner | None,
    config: DatasetConfig,
) -> list[UserFacts]:
    """Describe users. hinting: the reasoner, as of then, whose interests are hints; None where there are none."""
    facts = [facts_of(context, categories, titles, config.facts) for context in contexts]
    if hinting is None or not config.hints:
        return facts
    found = hinting.reason(contexts, config.hints)
    return [
        replace(told, hints=hints_of(interests, nodes, categories))
        for told, interests in zip(facts, found, strict=True)
    ]


def named_categories(
    model: BaseModel,
    contexts: Sequence[UserContext],
    facts: Sequence[UserFacts],
    grounder: Grounder,
    num_interests: int,
    max_new_tokens: int,
    *,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Ask about users: category numbers of their grounded novel interests, [users, K], best first, 0 past the last."""
    answers = generate(model, [render(told, model.style) for told in facts], max_new_tokens, progress=progress)
    found = np.zeros((len(contexts), num_interests), np.int64)
    for row, (context, told, answer) in enumerate(zip(contexts, facts, answers, strict=True)):
        try:
            proposals = read_answer(answer.text, whole=False)
        except AnswerError:
            continue
        known = set(context.clicks.categories.tolist())
        grounded = ground_answer(proposals, told, grounder, known, num_interests)
        named = [interest.node.category for interest in grounded.interests]
        found[row, : len(named)] = named
    return found
