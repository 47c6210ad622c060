"""What the two LLMs learn from: facts about moments of the histories, and the prompts they are told in.

The facts know nothing of wording: profiles, names and what is told of them are the renderer's, so that other group
models and ablations change the rendering alone. Point in time: a group, and the categories told, come from clicks
strictly before the moment; clicks of the same second do not know of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.prompt import answer, novelty_prompt, relevance_prompt
from serendipity.groups.sequence import DEFAULT_GROUP, SHORT_CATEGORIES, latest_distinct
from serendipity.interests.prompt import PromptStyle
from serendipity.layout import hash_of
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.coevolution.config import ExamplesConfig
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.logs.histories import Histories

Split = Literal["train", "validation"]

_EXPOSURE_SECONDS = 86_400
"""Exposures within so long before or after a click count as shown beside it."""


@dataclass(frozen=True)
class NoveltyExample:
    """A first occurrence of a category in a user's history (arXiv 2508.00450, eq. 8, one for each of them).

    user: number; time: Unix seconds, of the click; group: told; recent: numbers of the latest distinct categories
    told, newest first; target: number of the category.
    """

    user: int
    time: int
    group: int
    recent: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class RelevanceExample:
    """A click outside the latest categories, and categories that were not clicked: pairs (c⁺, c⁻) of one moment
    (arXiv 2508.00450, eq. 11).

    clicked: number of c⁺; unclicked: numbers of the c⁻, at least one; exposed: whether these were shown to the user,
    else they were drawn. The rest as in NoveltyExample.
    """

    user: int
    time: int
    group: int
    recent: tuple[int, ...]
    clicked: int
    unclicked: tuple[int, ...]
    exposed: bool


@dataclass(frozen=True)
class Renderer:
    """Writes prompts. profiles: by group id; categories: names by number − 1; with_profile: whether the group's profile
    is told (False: the ablation without Long)."""

    profiles: Sequence[str]
    categories: Sequence[str]
    style: PromptStyle
    with_profile: bool = True

    def novelty(self, group: int, recent: Sequence[int], *, trigger: bool = True) -> str:
        """Write the user message that asks for a novel category. trigger: False for prompts that are tuned on."""
        return novelty_prompt(*self._told(group, recent), self.style, trigger=trigger)

    def relevance(self, group: int, recent: Sequence[int], category: int) -> str:
        """Write the user message whose score tells how relevant a category is."""
        return relevance_prompt(*self._told(group, recent), self.categories[category - 1], self.style)

    def answer(self, category: int) -> str:
        """Write the Novelty LLM's answer."""
        return answer(self.categories[category - 1], self.style)

    def names(self, categories: Sequence[int]) -> list[str]:
        """Name categories."""
        return [self.categories[category - 1] for category in categories]

    def _told(self, group: int, recent: Sequence[int]) -> tuple[str, list[str]]:
        return self.profiles[group] if self.with_profile else "", self.names(recent)


def novelty_examples(
    histories: Histories, click_groups: NDArray[np.int32], config: ExamplesConfig
) -> list[NoveltyExample]:
    """Draw first occurrences, evenly over the users trained on. click_groups: [n clicks], the user's group before
    each."""
    users, numbers = histories.users.astype(np.int64), histories.categories.astype(np.int64)
    _, first = np.unique(users * (int(numbers.max(initial=0)) + 1) + numbers, return_index=True)
    first = first[numbers[first] != NO_CATEGORY]
    rng = np.random.default_rng([config.seed, 1, 1])
    examples = []
    for click in _drawn(histories, first, config.max_novelty, config, "train", rng):
        user, time, recent, group = known_before(histories, click_groups, click)
        told_group, told = drop_facts(group, recent, config, rng)
        examples.append(NoveltyExample(user, time, told_group, told, int(numbers[click])))
    return examples


def relevance_examples(
    histories: Histories,
    click_groups: NDArray[np.int32],
    num_categories: int,
    config: ExamplesConfig,
    *,
    split: Split = "train",
    exposures: Exposures | None = None,
) -> list[RelevanceExample]:
    """Draw clicks outside the latest categories, evenly over the users of the split, with categories beside each.

    Those were exposed and not clicked, where exposures tell of some; else they are drawn uniformly, without
    repetition, from the categories outside the latest ones that the user does not click next. Clicks with the former
    come first: drawn ones only make up for what they lack.
    """
    rng = np.random.default_rng([config.seed, 2, split == "train"])
    clicks = np.flatnonzero(histories.categories != NO_CATEGORY)
    beside = np.zeros(len(clicks), np.bool_)
    if exposures:
        beside = exposures.beside(histories.users[clicks], histories.times[clicks], _EXPOSURE_SECONDS)
    exposed: list[RelevanceExample] = []
    drawn: list[RelevanceExample] = []
    most = _most(config.max_relevance, config, split)
    for some, nothing_shown in ((clicks[beside], False), (clicks[~beside], True)):
        for click in _drawn(histories, some, len(some), config, split, rng):
            if len(exposed) + nothing_shown * len(drawn) >= most:
                break
            example = relevance_example(histories, click_groups, num_categories, config, click, rng, exposures)
            if example is not None:
                (exposed if example.exposed else drawn).append(example)
    return [*exposed, *drawn][:most]


def relevance_example(
    histories: Histories,
    click_groups: NDArray[np.int32],
    num_categories: int,
    config: ExamplesConfig,
    click: int,
    rng: np.random.Generator,
    exposures: Exposures | None = None,
) -> RelevanceExample | None:
    """Make the example of one click as `relevance_examples` does; None for a click inside the latest categories, or
    where no category is left to be set against it."""
    user, time, recent, group = known_before(histories, click_groups, click)
    clicked = int(histories.categories[click])
    if clicked in recent:
        return None
    end = int(histories.offsets[user + 1])
    start = int(histories.offsets[user]) + histories.count_before(user, time)
    following = histories.categories[start : min(max(click + 1, start + config.unclicked_clicks), end)]
    taken = {NO_CATEGORY, clicked, *recent, *following.tolist()}
    shown = exposures.shown(user, time, _EXPOSURE_SECONDS) - taken if exposures else set()
    choices = sorted(shown or set(range(1, num_categories + 1)) - taken)
    if not choices:
        return None
    drawn = rng.choice(len(choices), min(config.unclicked, len(choices)), replace=False)
    unclicked = tuple(choices[place] for place in drawn.tolist())
    told_group, told = drop_facts(group, recent, config, rng)
    return RelevanceExample(user, time, told_group, told, clicked, unclicked, bool(shown))


def split_of(user_id: str, config: ExamplesConfig) -> Split:
    """Tell the split of a user: by hash, so that it is the same in every build."""
    place = int(hash_of([b"coevolution", user_id.encode()])[:12], 16) / float(16**12)
    return "validation" if place < config.validation_share else "train"


def _most(train: int, config: ExamplesConfig, split: Split) -> int:
    """Validation has its share, and enough to tell methods apart."""
    return train if split == "train" else max(round(train * config.validation_share), 2_000)


def _drawn(
    histories: Histories,
    clicks: NDArray[np.int64],
    most: int,
    config: ExamplesConfig,
    split: Split,
    rng: np.random.Generator,
) -> Iterator[int]:
    """Yield at most `most` of the clicks in an order in which every user's turn comes before any second one's."""
    ours = np.array([split_of(user_id, config) == split for user_id in histories.user_ids], np.bool_)
    users = histories.users[clicks]
    known = clicks - histories.offsets[users] >= config.min_clicks
    kept = clicks[known & ours[users]]
    shuffled = rng.permutation(kept)
    owners = histories.users[shuffled]
    order = np.argsort(owners, kind="stable")
    turns = np.empty(len(order), np.int64)
    turns[order] = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    drawn = 0
    for click in shuffled[np.argsort(turns, kind="stable")].tolist():
        if drawn == most:
            return
        # Clicks of the same second do not know of each other.
        if histories.count_before(int(histories.users[click]), int(histories.times[click])) >= config.min_clicks:
            drawn += 1
            yield click


def known_before(
    histories: Histories, click_groups: NDArray[np.int32], click: int
) -> tuple[int, int, tuple[int, ...], int]:
    """Tell user, time, latest distinct categories and group just before a click."""
    user, time = int(histories.users[click]), int(histories.times[click])
    start = int(histories.offsets[user]) + histories.count_before(user, time)
    recent = latest_distinct(histories.clicks_before(user, time))
    return user, time, tuple(recent), int(click_groups[start])


def drop_facts(
    group: int, recent: tuple[int, ...], config: ExamplesConfig, rng: np.random.Generator
) -> tuple[int, tuple[int, ...]]:
    """Now and then tell the default group, or fewer categories. Draws as much whatever comes of it."""
    no_group, fewer, kept = rng.random(), rng.random(), int(rng.integers(SHORT_CATEGORIES))
    return (
        DEFAULT_GROUP if no_group < config.group_dropout else group,
        recent[:kept] if fewer < config.recent_dropout else recent,
    )
