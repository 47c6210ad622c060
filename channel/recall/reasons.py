"""Why items were found, each reason once.

Everything that can lead a user to an item has a slot: per interest one for items it is grounded in and one for items
near the user with it in mind, one for the user alone, one per category of the group's list. What led to which item is a
table of items × slots; words are made for the slots that are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.recall.interests import Interests
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import SOURCES
from serendipity.channel.recall.scorer import NOT_FOUND, Scored
from serendipity.channel.snapshot.stores import SeedKind, StoredPath
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.interests.text import MAX_CHARS, clean_text
from serendipity.v1 import channel_pb2

_COLLABORATIVE_TEXT = "Close to your taste as a whole."
_COLD_TEXT = "Many people choose it; little is known of you yet."


@dataclass(frozen=True)
class Reasons:
    """Reasons of n items, each listed once.

    indexes: [n] into `reasons`, the reason of the item's source; all_indexes with all_offsets [n + 1]: every reason of
    every item, as compressed rows; failure: why paths are missing, empty if they are not.
    """

    reasons: Sequence[channel_pb2.Reason]
    indexes: NDArray[np.int64]
    all_indexes: NDArray[np.int64]
    all_offsets: NDArray[np.int64]
    failure: str


def reasons_of(
    scored: Scored,
    interests: Interests,
    novel_categories: NovelCategories,
    read_paths: Callable[[], list[StoredPath]],
) -> Reasons:
    """Collect the reasons of the items returned, reading the user's paths only if an interest is among them.

    An item has a reason for each source that found it: the interest that leads to it best, and every other one that it
    is grounded in; the user; its category on the group's list. read_paths: paths in the order of the record that the
    interests are from; raises StoreError or StateUnavailable.
    """
    table, slot_of_source = _slots(scored, len(interests), novel_categories)
    used = table.any(axis=0)
    number = np.cumsum(used) - 1
    stored: list[StoredPath] = []
    failure = ""
    if used[: 2 * len(interests)].any():
        try:
            stored = read_paths()
        except (StoreError, StateUnavailable) as error:
            failure = f"reasons: {error}"
    of_user = 2 * len(interests)
    slots = np.flatnonzero(used).tolist()
    of_group = group_reasons(novel_categories, [slot - of_user - 1 for slot in slots if slot > of_user])
    of_source = (scored.sources[:, None] == np.array(SOURCES)).argmax(axis=1)
    return Reasons(
        reasons=[*(_reason(slot, interests, stored) for slot in slots if slot <= of_user), *of_group],
        indexes=number[slot_of_source[np.arange(len(scored)), of_source]],
        all_indexes=number[np.nonzero(table)[1]],
        all_offsets=np.concatenate(([0], np.cumsum(table.sum(axis=1)))),
        failure=failure,
    )


def _slots(
    scored: Scored, num_interests: int, novel_categories: NovelCategories
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Tell which slots lead to which item, [n, slots] bool, and the one that stands for each source, [n, S]."""
    n, k = len(scored), num_interests
    table = np.zeros((n, 2 * k + 1 + len(novel_categories)), np.bool_)
    found = scored.source_ranks != NOT_FOUND
    slot_of_source = np.zeros((n, len(SOURCES)), np.int64)
    by_interest = np.flatnonzero(found[:, 0])
    lead = scored.interests[by_interest].astype(np.int64)
    table[:, :k] = scored.grounded & found[:, :1]
    slot_of_source[by_interest, 0] = np.where(scored.grounded[by_interest, lead], lead, k + lead)
    slot_of_source[:, 1] = 2 * k
    if len(novel_categories):
        on_list = scored.categories[:, None] == novel_categories.numbers
        slot_of_source[:, 2] = 2 * k + 1 + on_list.argmax(axis=1)
    items, sources = np.nonzero(found)
    table[items, slot_of_source[items, sources]] = True
    return table, slot_of_source


def _reason(slot: int, interests: Interests, stored: list[StoredPath]) -> channel_pb2.Reason:
    k = len(interests)
    cold = interests.are_of_population
    if slot == 2 * k:
        text = _COLD_TEXT if cold else _COLLABORATIVE_TEXT
        return channel_pb2.Reason(source=channel_pb2.SOURCE_COLLABORATIVE, text=text, weight=1.0)
    interest, grounded = slot % k, slot < k
    name = clean_text(interests.names[interest])
    position = int(interests.positions[interest])
    path = _clean(stored[position], name) if position < len(stored) else StoredPath(SeedKind.UNSPECIFIED, "", "", name)
    # What lies near the user with the interest in mind need not be of the interest itself.
    nearby = _COLD_TEXT if cold else f"Close to your taste, with {path.latent_interest} in mind."
    return channel_pb2.Reason(
        source=channel_pb2.SOURCE_INTEREST,
        seed=path.seed,
        core_demand=path.core_demand,
        latent_interest=path.latent_interest,
        text=_sentence(path) if grounded or position >= len(stored) else nearby,
        weight=float(interests.weights[interest]),
    )


def _clean(path: StoredPath, name: str) -> StoredPath:
    """Bound what users typed and models wrote. name: the interest's node's, where the path does not name it."""
    return StoredPath(
        path.seed_kind, clean_text(path.seed), clean_text(path.core_demand), clean_text(path.latent_interest) or name
    )


def _sentence(path: StoredPath) -> str:
    """Say a path to a person, each of its names once; without a seed or a demand, what is known of it."""
    seed, demand, interest = path.seed, path.core_demand, path.latent_interest
    own = path.seed_kind in (SeedKind.SEARCH, SeedKind.CATEGORY)
    if (own and not seed) or path.seed_kind == SeedKind.UNSPECIFIED:
        return f"You may be curious about {interest}."
    did = f"You searched for “{seed}”" if path.seed_kind == SeedKind.SEARCH else f"You choose {seed}"
    if path.seed_kind == SeedKind.CATEGORY and seed == interest:
        # Long ago, or it would not be novel.
        return f"You used to choose {interest}, and have not lately."
    if own and _same(demand, interest):
        return f"{did}: behind that may be {interest}."
    if own and (not demand or _same(demand, seed)):
        return f"{did}, which also leads to {interest}."
    if own:
        return f"{did}: behind that may be {demand}, which also leads to {interest}."
    who = f"People like you ({seed})" if path.seed_kind == SeedKind.PROFILE and seed else "Many people"
    if not demand or _same(demand, interest):
        return f"{who} choose {interest}."
    return f"{who} look for {demand}, and find {interest}."


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def group_reasons(novel: NovelCategories, positions: Sequence[int]) -> list[channel_pb2.Reason]:
    """Say why categories of the list, by position, were searched: group profile → latest categories → category.

    Their weights are the categories' alignments.
    """
    profile = _shortened(novel.profile)
    recent = clean_text(_listed([name for name in map(clean_text, novel.recent) if name]))
    categories = [clean_text(novel.names[position]) for position in positions]
    return [
        channel_pb2.Reason(
            source=channel_pb2.SOURCE_GROUP,
            seed=profile,
            core_demand=recent,
            latent_interest=category,
            text=_group_sentence(novel.group_id, profile, recent, category),
            weight=float(novel.alignments[position]),
        )
        for position, category in zip(positions, categories, strict=True)
    ]


def _group_sentence(group_id: int, profile: str, recent: str, category: str) -> str:
    if group_id == DEFAULT_GROUP:
        return f"Many people who choose {recent} turn to {category} next." if recent else f"Many people try {category}."
    like_you = f"People like you ({profile})" if profile else "People like you"
    return f"{like_you} turn to {category} after {recent}." if recent else f"{like_you} may want {category}."


def _shortened(profile: str) -> str:
    """Cut a profile after its first sentence, or else between two words."""
    first = clean_text(profile.partition(". ")[0], MAX_CHARS + 1).rstrip(".")
    return first if len(first) <= MAX_CHARS else clean_text(first.rpartition(" ")[0] or first)


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
