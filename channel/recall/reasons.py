"""Why items were found, each reason once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.recall.candidates import NO_INTEREST
from serendipity.channel.recall.group_reasons import group_reason
from serendipity.channel.recall.interests import Interests
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import Reason
from serendipity.channel.recall.scorer import Scored
from serendipity.channel.snapshot.stores import SeedKind, StoredPath
from serendipity.interests.text import clean_text

_COLLABORATIVE_TEXT = "Close to your taste as a whole."
_COLD_TEXT = "Many people choose it; little is known of you yet."


@dataclass(frozen=True)
class InternedReasons:
    """Reasons of n items, each listed once.

    indexes: [n] int32 into `reasons`, the reason of the item's source; all_indexes with all_offsets [n + 1] int32:
    every reason of every item, as compressed rows; failure: why paths are missing, empty if they are not.
    """

    reasons: tuple[Reason, ...]
    indexes: NDArray[np.int32]
    all_indexes: NDArray[np.int32]
    all_offsets: NDArray[np.int32]
    failure: str


def intern_reasons(
    scored: Scored,
    interests: Interests,
    novel_categories: NovelCategories,
    read_paths: Callable[[], list[StoredPath]],
) -> InternedReasons:
    """Collect the reasons of the items returned, reading the user's paths only if an interest is among them.

    read_paths: paths in the order of the record that the interests are from; raises StoreError or StateUnavailable.
    """
    found = _finds_of(scored)
    failure = ""
    stored: list[StoredPath] = []
    if any(interest != NO_INTEREST for finds in found for _, interest in finds):
        try:
            stored = read_paths()
        except (StoreError, StateUnavailable) as error:
            failure = f"reasons: {error}"
    rows = scored.rows.tolist()
    positions = {number: position for position, number in enumerate(novel_categories.numbers.tolist())}
    category_of = dict(zip(rows, scored.categories.tolist(), strict=True))
    numbers: dict[tuple[int, int, bool], int] = {}

    def number(row: int, source: int, interest: int) -> int:
        # What led to an item: the interest, or of the group source the category, by position.
        led = positions[category_of[row]] if source == Source.GROUP else interest
        return numbers.setdefault((source, led, _is_grounded(row, interest, interests)), len(numbers))

    all_indexes = [number(row, *find) for row, finds in zip(rows, found, strict=True) for find in finds]
    offsets = np.cumsum([0, *(len(finds) for finds in found)])
    best = zip(rows, scored.sources.tolist(), scored.interests.tolist(), strict=True)
    return InternedReasons(
        reasons=tuple(
            group_reason(novel_categories, led)
            if source == Source.GROUP
            else _reason(Source(source), led, grounded, interests, stored)
            for source, led, grounded in numbers
        ),
        indexes=np.array([number(*find) for find in best], np.int32),
        all_indexes=np.array(all_indexes, np.int32),
        all_offsets=offsets.astype(np.int32),
        failure=failure,
    )


def _finds_of(scored: Scored) -> list[list[tuple[int, int]]]:
    """(source, interest) of every find of each item, best raw score first."""
    finds = scored.finds.take(np.isin(scored.finds.rows, scored.rows))
    order = np.lexsort((finds.interests, -finds.raw, finds.sources))
    by_row: dict[int, list[tuple[int, int]]] = {row: [] for row in scored.rows.tolist()}
    columns = (finds.rows[order].tolist(), finds.sources[order].tolist(), finds.interests[order].tolist())
    for row, source, interest in zip(*columns, strict=True):
        by_row[row].append((source, interest))
    return list(by_row.values())


def _is_grounded(row: int, interest: int, interests: Interests) -> bool:
    """Tell whether an item is one of those the interest is grounded in; an open search finds others too."""
    if interest == NO_INTEREST or interest >= len(interests.ranges):
        return True
    ranges = interests.ranges[interest]
    at = int(np.searchsorted(ranges.starts, row, side="right")) - 1
    return at >= 0 and row < int(ranges.ends[at])


def _reason(source: Source, interest: int, grounded: bool, interests: Interests, stored: list[StoredPath]) -> Reason:
    cold = interests.are_of_population
    if source is Source.COLLABORATIVE:
        return Reason(source, "", "", "", _COLD_TEXT if cold else _COLLABORATIVE_TEXT, 1.0)
    weight = float(interests.weights[interest])
    position = int(interests.positions[interest])
    name = clean_text(interests.names[interest])
    if position >= len(stored):
        return Reason(source, "", "", name, f"You may be curious about {name}.", weight)
    path = _clean(stored[position], name)
    # What an open search finds lies near the user with the interest in mind, and need not be of the interest itself.
    nearby = _COLD_TEXT if cold else f"Close to your taste, with {path.latent_interest} in mind."
    text = _sentence(path) if grounded else nearby
    return Reason(source, path.seed, path.core_demand, path.latent_interest, text, weight)


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
