"""Why items were found, each reason once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.candidates import NO_INTEREST
from serendipity.channel.errors import StoreError
from serendipity.channel.hydrate import Interests
from serendipity.channel.query import Source
from serendipity.channel.recalled import Reason
from serendipity.channel.scorer import Scored
from serendipity.channel.stores import PathStore, SeedKind, StoredPath

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


def intern_reasons(scored: Scored, interests: Interests, paths: PathStore) -> InternedReasons:
    """Collect the reasons of the items returned, reading the user's paths only if an interest is among them."""
    found = _finds_of(scored)
    failure = ""
    stored: list[StoredPath] = []
    if any(interest != NO_INTEREST for finds in found for _, interest in finds):
        try:
            stored = paths.read(interests.key)
        except StoreError as error:
            failure = f"reasons: {error}"
    numbers: dict[tuple[int, int, bool], int] = {}

    def number(row: int, source: int, interest: int) -> int:
        return numbers.setdefault((source, interest, _is_grounded(row, interest, interests)), len(numbers))

    rows = scored.rows.tolist()
    all_indexes = [number(row, *find) for row, finds in zip(rows, found, strict=True) for find in finds]
    offsets = np.cumsum([0, *(len(finds) for finds in found)])
    best = zip(rows, scored.sources.tolist(), scored.interests.tolist(), strict=True)
    return InternedReasons(
        reasons=tuple(
            _reason(Source(source), interest, grounded, interests, stored) for source, interest, grounded in numbers
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
    cold = interests.key == layout.DEFAULT_USER
    if source is Source.COLLABORATIVE:
        return Reason(source, "", "", "", _COLD_TEXT if cold else _COLLABORATIVE_TEXT, 1.0)
    weight = float(interests.weights[interest])
    position = int(interests.positions[interest])
    if position >= len(stored):
        name = interests.names[interest]
        return Reason(source, "", "", name, f"You may be curious about {name}.", weight)
    path = stored[position]
    # What an open search finds lies near the user with the interest in mind, and need not be of the interest itself.
    nearby = _COLD_TEXT if cold else f"Close to your taste, with {path.latent_interest} in mind."
    text = _sentence(path) if grounded else nearby
    return Reason(source, path.seed, path.core_demand, path.latent_interest, text, weight)


def _sentence(path: StoredPath) -> str:
    demand, interest = path.core_demand, path.latent_interest
    if path.seed_kind == SeedKind.SEARCH:
        return f"You searched for “{path.seed}”: behind that may be {demand}, which also leads to {interest}."
    if path.seed_kind == SeedKind.CATEGORY and path.seed == interest:
        # Long ago, or it would not be novel.
        return f"You used to choose {interest}, and have not lately."
    if path.seed_kind == SeedKind.CATEGORY:
        return f"You choose {path.seed}: behind that may be {demand}, which also leads to {interest}."
    if path.seed_kind == SeedKind.PROFILE:
        return f"People like you ({path.seed}) look for {demand}, and find {interest}."
    if demand == interest:
        return f"Many people choose {interest}."
    return f"Many people look for {demand}, and find {interest}."
