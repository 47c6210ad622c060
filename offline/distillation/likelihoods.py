"""What InterestGPT's likelihoods are worth, and what they count beside the reasoner's probabilities near-line.

The weight is chosen for the validation users, and judged on the test users, both as of the same moment: by recall@10
of the categories that a user had never clicked in and clicked in within the horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.category_trie import CategoryTrie
from serendipity.groups.decoding import LEAST_LOG_PROBABILITY, CategoryDecoder
from serendipity.interests.answer import NAMED, NAMING, named
from serendipity.interests.facts import facts_of
from serendipity.interests.mixing import mixed
from serendipity.interests.prompt import INSTRUCTIONS, render
from serendipity.interests.taxonomy_reasoner import TaxonomyReasoner, likeliest
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.distillation.config import DistillationConfig
from serendipity.offline.distillation.material import Material
from serendipity.offline.distillation.moments import DAY, entered_between, judged_at, split_of
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.tokens import prompt_tokens
from serendipity.v1 import records_pb2

LEAST_WEIGHT = 0.05
"""Floor of the weight: InterestGPT is heard, as sources are explored, even where it adds nothing."""

WEIGHTS = (0.0, LEAST_WEIGHT, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Weights that are tried, in log-odds a standard deviation."""

_PLACES = 10
_POPULAR_DAYS = 28


@dataclass(frozen=True)
class Judged:
    """n users who entered a category they had never clicked in; columns by category number.

    probabilities: [n, C + 1], the reasoner's P(enter); log_likelihoods: [n, C + 1], NaN for what is no candidate;
    popularity: [C + 1], users of the last 28 days; never: [n, C + 1] bool, never clicked in; entered: [n, C + 1] bool.
    """

    probabilities: NDArray[np.float32]
    log_likelihoods: NDArray[np.float32]
    popularity: NDArray[np.int64]
    never: NDArray[np.bool_]
    entered: NDArray[np.bool_]

    def mix(self, weight: float) -> NDArray[np.float64]:
        """Score candidates as near-line does, [n, C + 1]; 0 for others."""
        scores = np.zeros(self.probabilities.shape)
        for row, asked in enumerate(~np.isnan(self.log_likelihoods)):
            scores[row, asked] = mixed(self.probabilities[row, asked], self.log_likelihoods[row, asked], weight)
        return scores

    def recalls(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """Compute each user's recall@10, [n], of categories ordered by scores, [n, C + 1] or [C + 1]."""
        ranked = np.where(self.never, scores, -np.inf)
        best = np.argsort(-ranked, axis=1, kind="stable")[:, :_PLACES]
        hits = np.take_along_axis(self.entered, best, axis=1).sum(axis=1)
        recalls: NDArray[np.float64] = hits / np.maximum(self.entered.sum(axis=1), 1)
        return recalls


def log_likelihoods(
    base: BaseModel,
    categories: Sequence[str],
    prompts: Sequence[str],
    wanted: NDArray[np.bool_],
    max_prompt_tokens: int,
) -> NDArray[np.float32]:
    """Ask a model here how likely categories are as the first that it names: [n, C] float32, as Triton answers.

    wanted: [n, C] bool, those that are needed; what comes out of others is not meant to be looked at. A prompt that is
    too long loses its beginning.
    """
    tokenizer = base.tokenizer
    opening, ending = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (NAMING, NAMED))
    names = tokenizer([named(category) for category in categories], add_special_tokens=False)["input_ids"]
    trie = CategoryTrie(names, ending[0])
    tokens = prompt_tokens(tokenizer, prompts, base.style, INSTRUCTIONS)
    asked = [[*prompt[-max_prompt_tokens:], *opening] for prompt in tokens]
    found = CategoryDecoder(base.model.eval(), trie).log_probabilities(asked, wanted)
    likelihoods: NDArray[np.float32] = np.maximum(found, LEAST_LOG_PROBABILITY)
    return likelihoods


def judge(
    base: BaseModel,
    reasoner: TaxonomyReasoner,
    material: Material,
    config: DistillationConfig,
    split: str,
    max_prompt_tokens: int,
) -> Judged:
    """Ask about the users of a split, as near-line does. reasoner: fitted as of `judged_at`."""
    histories, moment, size = material.histories, judged_at(material.until, config.dataset), len(material.categories)
    users = [user for user in material.known_at(moment) if split_of(histories.user_ids[user]) == split]
    users = users[: config.judged_users]
    entered = entered_between(histories, moment, config.dataset.horizon_days, size, np.array(users, np.int64))
    contexts = contexts_at(histories, moment, users)
    never = np.ones_like(entered)
    never[:, NO_CATEGORY] = False
    for row, context in enumerate(contexts):
        never[row, context.long_history.categories] = False
        never[row, context.clicks.categories] = False
    entered &= never
    kept = np.flatnonzero(entered.any(axis=1))
    told = [contexts[row] for row in kept.tolist()]
    probabilities = reasoner.probabilities(told)
    wanted = np.zeros(probabilities.shape, np.bool_)
    for row, candidates in enumerate(likeliest(probabilities, config.num_candidates)):
        wanted[row, candidates] = True
    facts = [
        facts_of(context, material.categories, material.titles.__getitem__, config.dataset.facts) for context in told
    ]
    prompts = [render(some, base.style) for some in facts]
    found = np.full(probabilities.shape, np.nan, np.float32)
    found[:, 1:] = log_likelihoods(base, material.categories, prompts, wanted[:, 1:], max_prompt_tokens)
    found[~wanted] = np.nan
    recent = (histories.times >= moment - _POPULAR_DAYS * DAY) & (histories.times < moment)
    pairs = np.unique(np.stack([histories.users[recent], histories.categories[recent]]), axis=1)
    return Judged(
        probabilities=probabilities,
        log_likelihoods=found,
        popularity=np.bincount(pairs[1], minlength=size + 1),
        never=never[kept],
        entered=entered[kept],
    )


def weigh(validation: Judged, test: Judged) -> tuple[float, records_pb2.LikelihoodReport]:
    """Choose the weight for some users and judge it on others; the floor where nobody is there to choose it for."""
    recalls = [float(validation.recalls(validation.mix(weight)).sum()) for weight in WEIGHTS]
    best = WEIGHTS[int(np.argmax(recalls))]
    weight = max(best, LEAST_WEIGHT)
    reasoner, mix = test.recalls(test.probabilities), test.recalls(test.mix(weight))
    by_likelihood = np.nan_to_num(test.log_likelihoods, nan=-np.inf)
    difference = mix - reasoner
    users = len(difference)
    return weight, records_pb2.LikelihoodReport(
        best_weight=best,
        floor=LEAST_WEIGHT,
        users=users,
        reasoner=_mean(reasoner),
        likelihood=_mean(test.recalls(by_likelihood)),
        mix=_mean(mix),
        popularity=_mean(test.recalls(np.broadcast_to(test.popularity, test.never.shape))),
        margin=float(1.96 * difference.std(ddof=1) / np.sqrt(users)) if users > 1 else 0.0,
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
