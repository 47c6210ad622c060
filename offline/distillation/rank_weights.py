"""How much the interest a model names first, second … is worth: the share that users then entered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from serendipity.interests.answer import AnswerError, read_answer
from serendipity.interests.grounding import ground_answer
from serendipity.interests.prompt import INSTRUCTIONS, render
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.material import Material
from serendipity.offline.distillation.moments import VALIDATION, cuts_of, entered_between, split_of
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.user_facts import facts_of
from serendipity.offline.language_models.language_model import Completion, Prompt, Sampling
from serendipity.offline.language_models.local import LocalModel
from serendipity.offline.tuning.base_model import BaseModel

_BATCH = 64

_PRIOR_USERS = 8.0
"""Users' worth of the overall share mixed into every rank's: a few users say little of a rank alone."""


def measure_ranks(tuned: BaseModel, material: Material, config: DistillationConfig, max_new_tokens: int) -> list[float]:
    """Measure the weight of each rank on validation users, as of the last moment whose horizon the logs hold.

    The model is asked as the near-line worker does: facts, hints, grounding; a rank counts after grounding. Where there
    are fewer validation users than rank_weight_users, others fill up, whose answers the training has seen: the weights
    are then somewhat too high.
    """
    histories, num_interests = material.histories, config.dataset.num_interests
    cut = cuts_of(histories, material.until, config.dataset)[0]
    known = material.known_at(cut)
    known.sort(key=lambda user: split_of(histories.user_ids[user]) != VALIDATION)
    users = known[: config.rank_weight_users]
    contexts = contexts_at(histories, cut, users)
    facts = [facts_of(context, material.categories, material.titles, config.dataset.facts) for context in contexts]
    if config.dataset.hints:
        hints = material.teacher_at(cut).reason(contexts, config.dataset.hints)
        facts = [
            replace(told, hints=tuple(map(material.name_of, found))) for told, found in zip(facts, hints, strict=True)
        ]
    answers = generate(tuned, [render(told, tuned.style) for told in facts], max_new_tokens)
    found = np.zeros((len(users), num_interests), np.int64)
    for row, (context, told, answer) in enumerate(zip(contexts, facts, answers, strict=True)):
        try:
            proposals = read_answer(answer.text, whole=False)
        except AnswerError:
            continue
        clicked = set(context.clicks.categories.tolist())
        grounded = ground_answer(proposals, told, material.grounder, clicked, num_interests).interests
        found[row, : len(grounded)] = [interest.node.category for interest in grounded]
    days, chosen = config.dataset.horizon_days, np.array(users, np.int64)
    return rank_weights(found, entered_between(histories, cut, days, len(material.categories), chosen))


def generate(base: BaseModel, prompts: Sequence[str], max_new_tokens: int) -> list[Completion]:
    """Answer user messages in this process, unconstrained and greedily.

    Raises LanguageModelError for one that leaves no room for an answer.
    """
    tokenizer, system = base.tokenizer, INSTRUCTIONS
    if base.style == "compact":
        # A base may bring a chat template along that its prompts are not written in.
        tokenizer, system = copy.copy(tokenizer), ""
        tokenizer.chat_template = None
    model = LocalModel(
        base.name, lambda: (base.model.eval(), tokenizer), batch_size=_BATCH, threads=torch.get_num_threads()
    )
    return model.complete([Prompt(text, system) for text in prompts], Sampling(max_new_tokens=max_new_tokens))


def rank_weights(found: NDArray[np.int64], entered: NDArray[np.bool_]) -> list[float]:
    """Share of users who entered what was named at each rank, never rising from one rank to the next.

    found: [users, K] category numbers, best first, 0 = none; entered: [users, categories + 1].
    """
    named = found > 0
    hits = np.take_along_axis(entered, found, axis=1) & named
    overall = (hits.sum() + 0.5) / (named.sum() + 1.0)
    shares = (hits.sum(0) + _PRIOR_USERS * overall) / (named.sum(0) + _PRIOR_USERS)
    ranks = np.arange(found.shape[1])
    falling = IsotonicRegression(increasing=False).fit(ranks, shares, named.sum(0) + _PRIOR_USERS).predict(ranks)
    return [float(weight) for weight in falling]
