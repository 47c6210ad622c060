"""What may not be returned, each rule on its own, with what it kept and what it removed.

Categories and availability restrict the search already; here they are proved, so that no way of finding
candidates, present or future, can get round them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.candidates import Candidates
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.query import NoveltyPolicy
from serendipity.channel.recall.recalled import FilterOutcome
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.novelty import is_novel


@dataclass(frozen=True)
class Filtered:
    """What one filter made of the candidates given to it."""

    kept: Candidates
    removed: Candidates


class CandidateFilter(Protocol):
    """One rule. name: as in FilterCount."""

    name: str

    def keeps(self, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> NDArray[np.bool_]:
        """Mark the candidates that pass, [n] bool."""
        ...


class NoveltyFilter:
    """Under STRICT: the item's top-level category is not among the user's latest 200 clicks."""

    name = "novelty"

    def keeps(self, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> NDArray[np.bool_]:
        """Mark novel items; all of them under SOFT and OFF."""
        if user.query.novelty_policy is not NoveltyPolicy.STRICT:
            return np.ones(len(candidates), np.bool_)
        return is_novel(snapshot.categories_of(candidates.rows + 1), user.clicked)


class CategoryFilter:
    """Allow and deny lists of the request; items without a top-level category never pass."""

    name = "category"

    def keeps(self, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> NDArray[np.bool_]:
        """Mark items of allowed categories."""
        allowed: NDArray[np.bool_] = user.listed[snapshot.categories_of(candidates.rows + 1)]
        return allowed


class AvailabilityFilter:
    """Items out of stock, as of the snapshot and of later changes."""

    name = "availability"

    def keeps(self, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> NDArray[np.bool_]:  # noqa: ARG002
        """Mark available items."""
        available: NDArray[np.bool_] = ~user.unavailable[candidates.rows]
        return available


class ExcludedFilter:
    """Items the request excludes."""

    name = "excluded"

    def keeps(self, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> NDArray[np.bool_]:  # noqa: ARG002
        """Mark items that are not excluded."""
        return ~np.isin(candidates.rows, user.excluded)


class ServedFilter:
    """Items shown to the user within the horizon."""

    name = "served"

    def keeps(self, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> NDArray[np.bool_]:  # noqa: ARG002
        """Mark items that were not shown."""
        return ~np.isin(candidates.rows, user.served)


FILTERS: tuple[CandidateFilter, ...] = (
    NoveltyFilter(),
    CategoryFilter(),
    AvailabilityFilter(),
    ExcludedFilter(),
    ServedFilter(),
)
"""All filters, in the order they are applied and counted."""


def apply_filter(rule: CandidateFilter, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> Filtered:
    """Split candidates by one rule."""
    keeps = rule.keeps(candidates, user, snapshot)
    return Filtered(candidates.take(keeps), candidates.take(~keeps))


def apply_filters(
    candidates: Candidates, user: Hydrated, snapshot: Snapshot
) -> tuple[Candidates, tuple[FilterOutcome, ...]]:
    """Apply every filter in turn; counts are of distinct items. Scores that are not finite never get this far."""
    candidates = candidates.take(np.isfinite(candidates.raw))
    outcomes = []
    left = candidates.num_items
    for rule in FILTERS:
        filtered = apply_filter(rule, candidates, user, snapshot)
        # A rule judges items: all finds of one are kept or removed together.
        removed = filtered.removed.num_items if len(filtered.removed) else 0
        left -= removed
        outcomes.append(FilterOutcome(rule.name, left, removed))
        candidates = filtered.kept
    return candidates, tuple(outcomes)
