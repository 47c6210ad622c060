"""How much the interest a model names first, second … is worth: the share that users then entered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.isotonic import IsotonicRegression

from serendipity.interests.answer import AnswerError, read_answer
from serendipity.interests.grounding import Grounder, ground_answer
from serendipity.interests.prompt import PromptStyle, render
from serendipity.offline.distillation.base_model import BaseModel
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.generation import generate
from serendipity.offline.distillation.moments import VALIDATION, cuts_of, entered_between, split_of
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.reasoner import UserContext
from serendipity.offline.interests.user_facts import facts_of
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2

_PRIOR_USERS = 8.0
"""Users' worth of the overall share mixed into every rank's: a few users say little of a rank alone."""


def named_categories(
    tuned: BaseModel,
    contexts: Sequence[UserContext],
    categories: Sequence[str],
    titles: Sequence[str],
    grounder: Grounder,
    config: DistillationConfig,
    max_new_tokens: int,
    *,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Ask the model about users: category numbers of their grounded novel interests, [users, K], 0 past the last."""
    style: PromptStyle = tuned.style
    facts = [facts_of(context, categories, titles, config.dataset.facts) for context in contexts]
    answers = generate(tuned, [render(told, style) for told in facts], max_new_tokens, progress=progress)
    found = np.zeros((len(contexts), config.dataset.num_interests), np.int64)
    for row, (context, told, answer) in enumerate(zip(contexts, facts, answers, strict=True)):
        try:
            proposals = read_answer(answer.text, whole=False)
        except AnswerError:
            continue
        known = set(context.clicks.categories.tolist())
        grounded = ground_answer(proposals, told, grounder, known, found.shape[1])
        named = [interest.node.category for interest in grounded.interests]
        found[row, : len(named)] = named
    return found


def measure_rank_weights(
    tuned: BaseModel,
    histories: Histories,
    until: int,
    categories: Sequence[str],
    titles: Sequence[str],
    grounder: Grounder,
    config: DistillationConfig,
    spec: records_pb2.InterestGptSpec,
    *,
    progress: Progress | None = None,
) -> list[float]:
    """Measure the weight of each rank on validation users, as of the last moment whose horizon the logs hold.

    A rank counts after grounding. Where there are fewer validation users than rank_weight_users, others fill up, whose
    answers the training has seen: the weights are then somewhat too high.
    """
    cut = cuts_of(histories, until, config.dataset)[0]
    known = [user for user in range(len(histories)) if histories.count_before(user, cut) >= config.dataset.min_clicks]
    known.sort(key=lambda user: split_of(histories.user_ids[user], config.dataset) != VALIDATION)
    users = known[: config.rank_weight_users]
    found = named_categories(
        tuned,
        contexts_at(histories, cut, users),
        categories,
        titles,
        grounder,
        config,
        spec.max_new_tokens,
        progress=progress,
    )
    entered = entered_between(histories, cut, config.dataset.horizon_days, len(categories), np.array(users, np.int64))
    return rank_weights(found, entered)


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
