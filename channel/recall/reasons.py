"""Why items were found, each reason once.

Everything that can lead a user to an item has a slot: per interest one for items it is grounded in and one for items
near the user with it in mind, one for the user alone, one per category of the group's list, one per neighbour of the
user in the graph. What led to which item is a table of items × slots; words are made for the slots that are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.recall.folded_user import FoldedUser
from serendipity.channel.recall.interests import Interests
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import SOURCES
from serendipity.channel.recall.scorer import NOT_FOUND, Scored
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.interests.text import MAX_CHARS, clean_text
from serendipity.v1 import channel_pb2, records_pb2

_TEXTS = {
    ("SEARCH", "BEHIND"): "You searched for “{seed}”: behind that may be {latent}.",
    ("SEARCH", "LEADS_TO"): "You searched for “{seed}”, which also leads to {latent}.",
    ("SEARCH", "THROUGH_DEMAND"): "You searched for “{seed}”: behind that may be {core}, which also leads to {latent}.",
    ("SEARCH", "NEAR"): "You searched for “{seed}”.",
    ("CATEGORY", "BEHIND"): "You choose {seed}: behind that may be {latent}.",
    ("CATEGORY", "LEADS_TO"): "You choose {seed}, which also leads to {latent}.",
    ("CATEGORY", "THROUGH_DEMAND"): "You choose {seed}: behind that may be {core}, which also leads to {latent}.",
    ("CATEGORY", "RETURN"): "You used to choose {latent}, and have not lately.",
    ("PROFILE", "CHOOSE"): "{people_like_you} choose {latent}.",
    ("PROFILE", "THROUGH_DEMAND"): "{people_like_you} look for {core}, and find {latent}.",
    ("POPULATION", "CHOOSE"): "Many people choose {latent}.",
    ("POPULATION", "THROUGH_DEMAND"): "Many people look for {core}, and find {latent}.",
    ("POPULATION", "NEAR"): "Many people choose it; little is known of you yet.",
    ("POPULATION", "NEXT"): "Many people who choose {core} turn to {latent} next.",
    ("POPULATION", "CURIOUS"): "Many people try {latent}.",
    ("TASTE", "NEAR"): "Close to your taste{in_mind}.",
    ("GROUP", "NEXT"): "{people_like_you} turn to {latent} after {core}.",
    ("GROUP", "CURIOUS"): "{people_like_you} may want {latent}.",
    ("ITEM", "LINKED"): "Goes with {seed}, which you chose.",
    ("INTEREST", "LINKED"): "Goes with your interest in {seed}.",
    ("UNKNOWN", "CURIOUS"): "You may be curious about {latent}.",
}
"""What is said to a person, by ReasonKind and ReasonRelation: all that there are."""

_KINDS = {number: name.removeprefix("SEED_KIND_") for name, number in records_pb2.SeedKind.items() if number}


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
    read_paths: Callable[[], Sequence[records_pb2.InterestPath]],
    is_clicked: Callable[[str], bool] = lambda _: False,
    folded: FoldedUser | None = None,
    title_of: Callable[[int], str] = lambda _: "",
) -> Reasons:
    """Collect the reasons of the items returned, reading the user's paths only if an interest is among them.

    An item has a reason for each source that found it: the interest that leads to it best, and every other one that it
    is grounded in; the user; its category on the group's list; the neighbour in the graph that adds most to its score.
    read_paths: paths in the order of the record that the interests are from; raises StoreError or StateUnavailable.
    is_clicked: tells whether a category was clicked lately. title_of: gives the title of an item row.
    """
    lead, share = folded.lead(scored.rows) if folded else (np.zeros(len(scored), np.int64), np.zeros(len(scored)))
    table, slot_of_source = _slots(scored, len(interests), novel_categories, lead, len(folded or ()))
    used = table.any(axis=0)
    number = np.cumsum(used) - 1
    stored: Sequence[records_pb2.InterestPath] = ()
    failure = ""
    if used[: 2 * len(interests)].any():
        try:
            stored = read_paths()
        except (StoreError, StateUnavailable) as error:
            failure = f"reasons: {error}"
    of_user = 2 * len(interests)
    slots = np.flatnonzero(used).tolist()
    of_graph = of_user + 1 + len(novel_categories)
    by_graph = {slot: float(share[table[:, slot]].max()) for slot in slots if slot >= of_graph}
    told = [
        *(_reason_of(slot, interests, stored, is_clicked) for slot in slots if slot <= of_user),
        *group_reasons(novel_categories, [slot - of_user - 1 for slot in slots if of_user < slot < of_graph]),
        *(_graph_reason(folded, slot - of_graph, by_graph[slot], title_of) for slot in by_graph if folded),
    ]
    of_source = (scored.sources[:, None] == np.array(SOURCES)).argmax(axis=1)
    return Reasons(
        reasons=told,
        indexes=number[slot_of_source[np.arange(len(scored)), of_source]],
        all_indexes=number[np.nonzero(table)[1]],
        all_offsets=np.concatenate(([0], np.cumsum(table.sum(axis=1)))),
        failure=failure,
    )


def _slots(
    scored: Scored, num_interests: int, novel_categories: NovelCategories, lead: NDArray[np.int64], num_neighbours: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Tell which slots lead to which item, [n, slots] bool, and the one that stands for each source, [n, S].

    lead: [n], neighbour in the graph that leads to each item, of num_neighbours.
    """
    n, k = len(scored), num_interests
    of_graph = 2 * k + 1 + len(novel_categories)
    table = np.zeros((n, of_graph + num_neighbours), np.bool_)
    found = scored.source_ranks != NOT_FOUND
    slot_of_source = np.zeros((n, len(SOURCES)), np.int64)
    by_interest = np.flatnonzero(found[:, 0])
    best = scored.interests[by_interest].astype(np.int64)
    table[:, :k] = scored.grounded & found[:, :1]
    slot_of_source[by_interest, 0] = np.where(scored.grounded[by_interest, best], best, k + best)
    slot_of_source[:, 1] = 2 * k
    if len(novel_categories):
        on_list = scored.categories[:, None] == novel_categories.numbers
        slot_of_source[:, 2] = 2 * k + 1 + on_list.argmax(axis=1)
    slot_of_source[:, 3] = of_graph + lead
    items, sources = np.nonzero(found)
    table[items, slot_of_source[items, sources]] = True
    return table, slot_of_source


def _reason_of(
    slot: int, interests: Interests, stored: Sequence[records_pb2.InterestPath], is_clicked: Callable[[str], bool]
) -> channel_pb2.Reason:
    k = len(interests)
    near = "POPULATION" if interests.are_of_population else "TASTE", "NEAR"
    if slot == 2 * k:
        return _reason(channel_pb2.SOURCE_COLLABORATIVE, near, weight=1.0)
    interest, position = slot % k, int(interests.positions[slot % k])
    known = 0 <= position < len(stored)
    path = stored[position] if known else records_pb2.InterestPath()
    # Users typed these, and models wrote them.
    seed, demand, name = map(clean_text, (path.seed, path.core_demand, path.latent_interest))
    name = name or clean_text(interests.names[interest])
    # What lies near the user with the interest in mind need not be of the interest itself.
    meaning = _meaning(path.seed_kind, seed, demand, name) if slot < k or not known else near
    if search := clean_text(interests.searches[interest]):
        seed, demand, meaning = (search, "", ("SEARCH", "NEAR")) if slot < k else (seed, demand, near)
    elif meaning == ("CATEGORY", "RETURN") and is_clicked(name):
        # Generated when it was long ago, and found under SOFT or OFF.
        meaning = near
    names = {"seed": seed, "core_demand": demand, "latent_interest": name}
    return _reason(channel_pb2.SOURCE_INTEREST, meaning, **names, weight=float(interests.weights[interest]))


def _meaning(seed_kind: int, seed: str, demand: str, interest: str) -> tuple[str, str]:
    """Tell kind and relation of a path, so that its text names nothing twice and nothing empty."""
    # Records of earlier builds name the interest itself as the seed.
    if seed_kind == records_pb2.SEED_KIND_PAST or (seed_kind == records_pb2.SEED_KIND_CATEGORY and seed == interest):
        return "CATEGORY", "RETURN"
    kind = _KINDS.get(seed_kind, "UNKNOWN")
    if not seed:
        kind = "POPULATION" if kind in ("PROFILE", "POPULATION") else "UNKNOWN"
    if kind == "UNKNOWN":
        return kind, "CURIOUS"
    if kind == "SEARCH" and seed.casefold() == interest.casefold():
        return kind, "NEAR"
    own = kind in ("SEARCH", "CATEGORY")
    if own and demand.casefold() == interest.casefold():
        return kind, "BEHIND"
    if demand.casefold() in ("", (seed if own else interest).casefold()):
        return kind, "LEADS_TO" if own else "CHOOSE"
    return kind, "THROUGH_DEMAND"


def group_reasons(novel: NovelCategories, positions: Sequence[int]) -> list[channel_pb2.Reason]:
    """Say why categories of the list, by position, were searched: group profile → latest categories → category.

    Their weights are the categories' alignments.
    """
    recent = [name for name in map(clean_text, novel.recent) if name]
    meaning = "POPULATION" if novel.group_id == DEFAULT_GROUP else "GROUP", "NEXT" if recent else "CURIOUS"
    listed = clean_text(", ".join([*recent[:-2], " and ".join(recent[-2:])]))
    of_list = {"seed": _shortened(novel.profile), "core_demand": listed, "recent_categories": recent}
    named = [(clean_text(novel.names[position]), float(novel.alignments[position])) for position in positions]
    return [
        _reason(channel_pb2.SOURCE_GROUP, meaning, **of_list, latent_interest=name, weight=weight)
        for name, weight in named
    ]


def _graph_reason(
    folded: FoldedUser, neighbour: int, share: float, title_of: Callable[[int], str]
) -> channel_pb2.Reason:
    """Name a neighbour of the user; share: of what raises the score of an item it leads to."""
    held = neighbour - len(folded.rows)
    if held >= 0:
        kind, seed = "INTEREST", folded.graph.interests[folded.interests[held]]
    else:
        kind, seed = "ITEM", title_of(int(folded.rows[neighbour]))
    # A title that cannot be read, or is none.
    seed = clean_text(seed) or "something"
    return _reason(channel_pb2.SOURCE_GRAPH, (kind, "LINKED"), seed=seed, weight=share)


def _reason(source: channel_pb2.Source, meaning: tuple[str, str], **fields: Any) -> channel_pb2.Reason:
    kind, relation = f"REASON_KIND_{meaning[0]}", f"REASON_RELATION_{meaning[1]}"
    reason = channel_pb2.Reason(source=source, kind=kind, relation=relation, **fields)
    seed, latent = reason.seed, reason.latent_interest
    reason.text = _TEXTS[meaning].format(
        seed=seed,
        core=reason.core_demand,
        latent=latent,
        people_like_you=f"People like you ({seed})" if seed else "People like you",
        in_mind=f", with {latent} in mind" if latent else " as a whole",
    )
    return reason


def _shortened(profile: str) -> str:
    """Cut a profile after its first sentence, or else between two words."""
    first = clean_text(profile.partition(". ")[0], MAX_CHARS + 1).rstrip(".")
    return first if len(first) <= MAX_CHARS else clean_text(first.rpartition(" ")[0] or first)
