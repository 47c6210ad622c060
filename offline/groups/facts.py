"""What sets a group apart: which categories its users choose more often, often, and rarely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.prompt import MAX_PROFILE_CHARS
from serendipity.interests.text import clean_text

_PRIOR_USERS = 5
"""Users of the population's mean taste that every group is thought to have besides: what a handful of users did says
little about a group."""

_MUCH_LESS = 0.5
"""Share of the population's share below which a category is not called chosen often, however many choose it."""


@dataclass(frozen=True)
class GroupFacts:
    """Category numbers: `apart` more often chosen than by the population, most so first; `often` the most chosen of the
    others; `rarely` those that the population chooses and the group least. lifts: share of the group against the
    population's, of each of `apart`."""

    apart: tuple[int, ...]
    lifts: tuple[float, ...]
    often: tuple[int, ...]
    rarely: tuple[int, ...]


def category_shares(
    users: NDArray[np.int64], categories: NDArray[np.int32], num_users: int, num_categories: int
) -> NDArray[np.float64]:
    """Give every user's share of clicks in every category, [U, C + 1]; rows of users without clicks are zero.

    users, categories: [n] of each click; categories without a number (0) do not count.
    """
    counts = np.zeros((num_users, num_categories + 1))
    np.add.at(counts, (users, categories), 1)
    counts[:, 0] = 0
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def group_facts(
    shares: NDArray[np.float64], group_ids: NDArray[np.int32], num_groups: int, names: int
) -> list[GroupFacts]:
    """Find the facts of groups 0 … num_groups; those of the default group, 0, are the whole population's.

    shares: [U, C + 1], every user counts alike; group_ids: [U]; names: categories of each kind at most. A category sets
    a group apart by share · log(share / the population's share), its part in the divergence of the group's choices
    from the population's.
    """
    active = shares.sum(1) > 0
    population = shares[active].mean(0) if active.any() else shares.sum(0)
    facts = [_population_facts(population, names)]
    for group in range(1, num_groups + 1):
        members = shares[active & (group_ids == group)]
        share = (members.sum(0) + _PRIOR_USERS * population) / (len(members) + _PRIOR_USERS)
        facts.append(_facts(share, population, names))
    return facts


def describe(facts: GroupFacts, categories: Sequence[str], most: int = MAX_PROFILE_CHARS) -> str:
    """Write facts as a profile of at most `most` characters: names of categories as they are, one after another.

    categories: names by number − 1. Names that no longer fit are left out.
    """
    text = ""
    for title, numbers in (("prefers", facts.apart), ("often", facts.often), ("rarely", facts.rarely)):
        begun = False
        for number in numbers:
            name = clean_text(categories[number - 1])
            longer = f"{text}, {name}" if begun else f"{text}{'. ' if text else ''}{title} {name}"
            if name and len(longer) <= most:
                text, begun = longer, True
    return text or "no clicks yet"


def _population_facts(population: NDArray[np.float64], names: int) -> GroupFacts:
    chosen = _best(population, population > 0, 2 * names)
    rarest = _best(-population, population > 0, names)
    return GroupFacts((), (), tuple(chosen), tuple(number for number in rarest if number not in chosen))


def _facts(share: NDArray[np.float64], population: NDArray[np.float64], names: int) -> GroupFacts:
    lift = np.divide(share, population, out=np.ones_like(share), where=population > 0)
    part = share * np.log(np.maximum(lift, 1e-12))
    apart = _best(part, lift > 1, names)
    left = population > 0
    left[apart] = False
    often = _best(share, left & (lift >= _MUCH_LESS), names)
    left[often] = False
    missing = population * np.log(np.maximum(lift, 1e-12))
    rarely = _best(-missing, left & (lift < 1), names)
    return GroupFacts(tuple(apart), tuple(float(lift[number]) for number in apart), tuple(often), tuple(rarely))


def _best(values: NDArray[np.float64], allowed: NDArray[np.bool_], most: int) -> list[int]:
    """Numbers of the largest values among those allowed, the lowest number first among equals; never 0."""
    numbers = np.flatnonzero(allowed)
    numbers = numbers[numbers > 0]
    best: list[int] = numbers[np.argsort(-values[numbers], kind="stable")][:most].tolist()
    return best
