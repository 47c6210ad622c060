"""One example: what a user was like at a moment, and what the teacher answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.answer import CATEGORY_FIRST, Proposal, read_answer, write_answer
from serendipity.interests.grounding import GroundedInterest, Grounder, ground_answer
from serendipity.interests.prompt import PromptStyle, UserFacts, render
from serendipity.offline.distillation.config import DatasetConfig
from serendipity.offline.interests.reasoner import Interest, UserContext
from serendipity.offline.interests.taxonomy import TaxonomyNode
from serendipity.offline.interests.user_facts import facts_of

POPULATION_SEED = "everyone"
"""Seed of an interest that only the population speaks for: an answer's fields are never empty."""

_MINUTE = 60

UNTOLD = "nothing is known of the user"
UNGROUNDED = "no interest grounds"
UNCONFIRMED = "the user entered none of them"
REPEATED = "the prompt occurred before"


@dataclass(frozen=True)
class Example:
    """A row of the data set.

    as_of: Unix seconds. reasoning: the paths in words, one a line. answer: JSON. num_interests of the answer;
    num_confirmed: where they were selected so, how many of them, the first ones, the user then entered, else 0;
    num_dropped: proposals that did not ground or are not novel.
    """

    user_id: str
    as_of: int
    split: str
    prompt: str
    reasoning: str
    answer: str
    teacher: str
    num_interests: int
    num_confirmed: int
    num_dropped: int


@dataclass(frozen=True)
class Rejected:
    """A context that makes no example, and why."""

    user_id: str
    as_of: int
    reason: str
    prompt: str


def with_search(
    user: UserContext,
    found: Sequence[Interest],
    nodes: Sequence[TaxonomyNode],
    categories: Sequence[str],
    config: DatasetConfig,
    rng: np.random.Generator,
) -> UserContext:
    """Give a user without searches one for the category of a random proposal, in `search_share` of all cases.

    found: what the teacher proposes without it. The same user comes back in all other cases.
    """
    if user.searches or not found or rng.random() >= config.search_share:
        return user
    node = nodes[found[int(rng.integers(len(found)))].node_id]
    return replace(user, searches=((categories[node.categories[0] - 1], user.now - _MINUTE),))


def make_example(
    user: UserContext,
    found: Sequence[Interest],
    hinting: Sequence[Interest],
    entered: Collection[int],
    correction: NDArray[np.float64],
    nodes: Sequence[TaxonomyNode],
    grounder: Grounder,
    categories: Sequence[str],
    titles: Sequence[str],
    config: DatasetConfig,
    style: PromptStyle,
    teacher: str,
    split: str,
    rng: np.random.Generator,
) -> Example | Rejected:
    """Make an example of a user's context and the teacher's interests, best first.

    hinting: interests that the prompt hints at: near-line they are older than the latest search.
    entered: numbers of the categories the user entered within the horizon; they only matter for the selection
    "confirmed": there the entered ones come first, in random order, so that what is learned of the first place is how
    likely each category is entered and not how the teacher ranks it; others follow in the teacher's order.
    correction: [categories + 1] float64, what weights are multiplied with in the selection "corrected".
    """
    facts = facts_of(user, categories, titles, config.facts)
    if rng.random() >= config.hint_dropout:
        facts = replace(facts, hints=hints_of(hinting[: config.hints], nodes, categories))
    prompt = render(facts, style)
    if facts.is_empty:
        return Rejected(user.user_id, user.now, UNTOLD, prompt)
    chosen, num_confirmed = _select(found, entered, correction, nodes, config, rng)
    if config.selection == "confirmed" and not num_confirmed:
        return Rejected(user.user_id, user.now, UNCONFIRMED, prompt)
    proposals = [_proposal(interest, nodes, categories) for interest in chosen]
    known = set(user.clicks.categories.tolist())
    grounded = ground_answer(proposals, facts, grounder, known, config.num_interests)
    if not grounded.interests:
        return Rejected(user.user_id, user.now, UNGROUNDED, prompt)
    kept = [_written(interest, categories) for interest in grounded.interests]
    confirmed = {category for category in entered if num_confirmed}
    return Example(
        user_id=user.user_id,
        as_of=user.now,
        split=split,
        prompt=prompt,
        reasoning="\n".join(f"{row.seed} → {row.demand} → {row.interest}" for row in kept),
        answer=write_answer(kept, CATEGORY_FIRST),
        teacher=teacher,
        num_interests=len(kept),
        num_confirmed=sum(interest.node.category in confirmed for interest in grounded.interests),
        num_dropped=sum(grounded.dropped.values()),
    )


def hints_of(found: Sequence[Interest], nodes: Sequence[TaxonomyNode], categories: Sequence[str]) -> tuple[str, ...]:
    """Name the categories of interests, in their order."""
    return tuple(categories[nodes[interest.node_id].categories[0] - 1] for interest in found)


def hints_alone(example: Example) -> Example | None:
    """Shorten a compact prompt to its hints and the searches that the answer starts from; None without hints.

    Copying is learned from these at half the tokens.
    """
    lines = dict(line.split(": ", 1) for line in example.prompt.splitlines() if ": " in line)
    if "hints" not in lines:
        return None
    seeds = {proposal.seed for proposal in read_answer(example.answer)}
    facts = UserFacts(
        searches=[text for text in lines.get("searches", "").split("; ") if text in seeds],
        hints=lines["hints"].split("; "),
    )
    return replace(example, prompt=render(facts, "compact"))


def _select(
    found: Sequence[Interest],
    entered: Collection[int],
    correction: NDArray[np.float64],
    nodes: Sequence[TaxonomyNode],
    config: DatasetConfig,
    rng: np.random.Generator,
) -> tuple[list[Interest], int]:
    if config.selection == "teacher":
        return list(found[: config.num_interests]), 0
    if config.selection == "corrected":
        weights = [interest.weight * correction[nodes[interest.node_id].categories[0]] for interest in found]
        order = np.argsort(-np.array(weights), kind="stable")[: config.num_interests]
        return [found[place] for place in order], 0
    confirmed = [interest for interest in found if nodes[interest.node_id].categories[0] in entered]
    others = [interest for interest in found if nodes[interest.node_id].categories[0] not in entered]
    confirmed = [confirmed[place] for place in rng.permutation(len(confirmed))][: config.num_interests]
    return [*confirmed, *others][: config.num_interests], len(confirmed)


def _proposal(interest: Interest, nodes: Sequence[TaxonomyNode], categories: Sequence[str]) -> Proposal:
    return Proposal(
        seed=interest.path.seed or POPULATION_SEED,
        demand=interest.path.core_demand,
        interest=interest.path.latent_interest,
        category=categories[nodes[interest.node_id].categories[0] - 1],
    )


def _written(interest: GroundedInterest, categories: Sequence[str]) -> Proposal:
    return Proposal(
        seed=interest.path.seed or POPULATION_SEED,
        demand=interest.path.core_demand,
        interest=interest.path.latent_interest,
        category=categories[interest.node.category - 1],
    )
