"""One example: what a user was like at a moment, and what the teacher answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.answer import CATEGORY_FIRST, Proposal, write_answer
from serendipity.interests.facts import facts_of
from serendipity.interests.grounding import ground_answer
from serendipity.interests.prompt import PromptStyle, render
from serendipity.interests.reasoner import Interest, InterestPath, UserContext
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.distillation.material import Material
from serendipity.offline.distillation.moments import split_of
from serendipity.v1 import records_pb2

POPULATION_SEED = "everyone"
"""Seed of an interest that only the population speaks for: an answer's fields are never empty."""

_MINUTE = 60
_LEAST_WEIGHT = 1e-9

UNTOLD = "nothing is known of the user"
UNGROUNDED = "no interest grounds"
REPEATED = "the prompt occurred before"


@dataclass(frozen=True)
class Example:
    """A row of the data set. as_of: Unix seconds; reasoning: the paths in words, one a line; answer: JSON."""

    user_id: str
    as_of: int
    split: str
    prompt: str
    reasoning: str
    answer: str


def with_search(
    user: UserContext, found: Sequence[Interest], material: Material, config: DatasetConfig, rng: np.random.Generator
) -> UserContext:
    """Give a user without searches one for the category of a random proposal, in `search_share` of all cases.

    found: what the teacher proposes without it. The same user comes back in all other cases.
    """
    if user.searches or not found or rng.random() >= config.search_share:
        return user
    query = material.name_of(found[int(rng.integers(len(found)))])
    return replace(user, searches=((query, user.now - _MINUTE),))


def make_example(
    user: UserContext,
    found: Sequence[Interest],
    correction: NDArray[np.float64],
    material: Material,
    config: DatasetConfig,
    style: PromptStyle,
    rng: np.random.Generator,
) -> Example | str:
    """Make an example of a user's context and the teacher's interests, best first; or tell why it makes none.

    correction: [categories + 1] float64, what weights are multiplied with. Then each place is drawn in proportion to
    the weights that are left (Plackett-Luce, by Gumbel noise), so that a category stands first as often as it is
    likely: what is learned of the first place is what near-line asks for.
    """
    facts = facts_of(user, material.categories, material.titles.__getitem__, config.facts)
    if facts.is_empty:
        return UNTOLD
    weights = np.array([interest.weight * correction[material.category_of(interest)] for interest in found])
    drawn = np.log(np.maximum(weights, _LEAST_WEIGHT)) + rng.gumbel(size=len(found))
    found = [found[place] for place in np.argsort(-drawn, kind="stable")]
    proposals = [_proposal(interest.path, material.name_of(interest)) for interest in found[: config.num_interests]]
    known = set(user.clicks.categories.tolist())
    grounded = ground_answer(proposals, facts, material.grounder, known, config.num_interests).interests
    if not grounded:
        return UNGROUNDED
    kept = [_proposal(interest.path, material.categories[interest.node.category - 1]) for interest in grounded]
    return Example(
        user_id=user.user_id,
        as_of=user.now,
        split=split_of(user.user_id),
        prompt=render(facts, style),
        reasoning="\n".join(f"{row.seed} → {row.demand} → {row.interest}" for row in kept),
        answer=write_answer(kept, CATEGORY_FIRST),
    )


def _proposal(path: InterestPath | records_pb2.InterestPath, category: str) -> Proposal:
    return Proposal(
        seed=path.seed or POPULATION_SEED, demand=path.core_demand, interest=path.latent_interest, category=category
    )
