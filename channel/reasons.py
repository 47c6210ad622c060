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
    numbers: dict[tuple[int, int], int] = {}
    all_indexes = [numbers.setdefault(find, len(numbers)) for finds in found for find in finds]
    offsets = np.cumsum([0, *(len(finds) for finds in found)])
    best = zip(scored.sources.tolist(), scored.interests.tolist(), strict=True)
    return InternedReasons(
        reasons=tuple(_reason(Source(source), interest, interests, stored) for source, interest in numbers),
        indexes=np.array([numbers[find] for find in best], np.int32),
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


def _reason(source: Source, interest: int, interests: Interests, stored: list[StoredPath]) -> Reason:
    if source is Source.COLLABORATIVE:
        text = _COLD_TEXT if interests.key == layout.DEFAULT_USER else _COLLABORATIVE_TEXT
        return Reason(source, "", "", "", text, 1.0)
    weight = float(interests.weights[interest])
    position = int(interests.positions[interest])
    if position >= len(stored):
        name = interests.names[interest]
        return Reason(source, "", "", name, f"You may be curious about {name}.", weight)
    path = stored[position]
    return Reason(source, path.seed, path.core_demand, path.latent_interest, _sentence(path), weight)


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
