"""Everything the stages need to know of one user, read in one pass.

Snapshot, acknowledged feedback and the request's own events are laid over one another here; nothing after this
reads a user's records again, except the paths of the reasons that are returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.query import (
    NoveltyPolicy,
    QueryWarning,
    RecallQuery,
    ResolvedQuery,
    WarningCode,
    resolve,
)
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot import Lease, Snapshot
from serendipity.channel.state import UserState
from serendipity.channel.stores import StoredInterests, StoredUser, feedback_columns
from serendipity.channel.vectors import RowRanges
from serendipity.features import LongHistory, TowerInputs, with_clicks
from serendipity.novelty import NO_CATEGORY, Clicks, clicked_categories, latest

_DAY = 86_400

_UNPROVED = "novelty is judged without it"
"""Said where clicks cannot be read: what is returned is novel only to the clicks that can."""


class Freshness(Enum):
    """What became of the user's cached interests."""

    FRESH = "fresh"
    STALE = "past their life, still used"
    MISSING = "none are cached"
    TOO_OLD = "past the hard age"
    FOREIGN = "grounded in another taxonomy"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Interests:
    """The latent interests searched by, best first; k of them.

    key: record they come from; positions: [k] int64 in that record; names: k; weights: [k] float32, 0 to 1;
    vectors: [k, D] float32 text embeddings; ranges: per interest, the allowed item rows it is grounded in;
    generated_at: when the record was made, Unix seconds.
    """

    freshness: Freshness
    key: bytes
    positions: NDArray[np.int64]
    names: tuple[str, ...]
    weights: NDArray[np.float32]
    vectors: NDArray[np.float32]
    ranges: tuple[RowRanges, ...]
    generated_at: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def none(cls, freshness: Freshness, key: bytes, dim: int) -> Interests:
        """No interests, and why."""
        empty = np.empty(0, np.float32)
        return cls(freshness, key, np.empty(0, np.int64), (), empty, np.empty((0, dim), np.float32), ())


@dataclass(frozen=True)
class Hydrated:
    """One user, ready to be searched for.

    clicks: latest 200 of snapshot ∪ feedback ∪ request; clicked: [c + 1] bool by category number;
    listed: [c + 1] bool, categories that the request's lists leave; ranges: rows of those that may be returned
    (STRICT leaves out the clicked ones);
    unavailable: [n] bool; excluded, served: item rows; inputs: a batch of one for the user tower;
    stored_vector: [d] float32, stands in for the tower; warnings; degraded_reasons: what was down or unreadable.
    """

    query: RecallQuery
    clicks: Clicks
    clicked: NDArray[np.bool_]
    listed: NDArray[np.bool_]
    ranges: RowRanges
    unavailable: NDArray[np.bool_]
    excluded: NDArray[np.int64]
    served: NDArray[np.int64]
    interests: Interests
    inputs: TowerInputs
    stored_vector: NDArray[np.float32] | None
    warnings: tuple[QueryWarning, ...]
    degraded_reasons: tuple[str, ...]


def hydrate(lease: Lease, query: RecallQuery, state: UserState, settings: ChannelSettings) -> Hydrated:
    """Read what is known of the query's user. Never fails for the user's sake: what is missing is said."""
    snapshot = lease.snapshot
    resolved = resolve(query, snapshot)
    warnings = [*query.warnings, *resolved.warnings]
    degraded: list[str] = []
    key, user = _user(snapshot, query, warnings, degraded)
    recent, served = _feedback(snapshot, query, state, settings, warnings, degraded)
    clicks = latest(resolved.clicks, recent, user.clicks)
    clicked = clicked_categories(clicks, snapshot.num_categories)
    allowed = resolved.categories & ~clicked if query.novelty_policy is NoveltyPolicy.STRICT else resolved.categories
    ranges = RowRanges.of_categories(allowed, snapshot.category_offsets)
    interests = _interests(snapshot, query, key, ranges, settings, degraded)
    return Hydrated(
        query=query,
        clicks=clicks,
        clicked=clicked,
        listed=resolved.categories,
        ranges=ranges,
        unavailable=_unavailable(lease, state, degraded),
        excluded=resolved.excluded,
        served=served,
        interests=interests,
        inputs=_tower_inputs(snapshot, query, resolved, user, clicks, interests),
        stored_vector=user.vector,
        warnings=tuple(warnings),
        degraded_reasons=tuple(degraded),
    )


def _user(
    snapshot: Snapshot, query: RecallQuery, warnings: list[QueryWarning], degraded: list[str]
) -> tuple[bytes, StoredUser]:
    key = layout.user_key(query.user_id)
    user = None
    try:
        user = snapshot.users.read(key)
        if user is None:
            warnings.append(QueryWarning(WarningCode.COLD_USER, "user_id", "not in the snapshot: a cold start"))
    except StoreError as error:
        degraded.append(f"user record: {error}; {_UNPROVED}")
    if user is not None:
        return key, user
    try:
        user = snapshot.users.read(layout.DEFAULT_USER)
    except StoreError as error:
        degraded.append(f"record of cold users: {error}")
    nobody = StoredUser(Clicks.empty(), LongHistory.empty(), snapshot.assembler.encode_profile({}), None)
    return layout.DEFAULT_USER, user or nobody


def _feedback(
    snapshot: Snapshot,
    query: RecallQuery,
    state: UserState,
    settings: ChannelSettings,
    warnings: list[QueryWarning],
    degraded: list[str],
) -> tuple[Clicks, NDArray[np.int64]]:
    """Read clicks that came as feedback, and rows exposed within the horizon."""
    nothing = Clicks.empty(), np.empty(0, np.int64)
    if not state.owns(query.user_id):
        warnings.append(
            QueryWarning(WarningCode.NOT_OWNER, "user_id", "another host owns this user's feedback: judged without it")
        )
    try:
        record = state.feedback(query.user_id)
    except StateUnavailable as error:
        degraded.append(f"feedback: {error}; {_UNPROVED}")
        return nothing
    if record is None:
        return nothing
    items, times = feedback_columns(record.clicks, snapshot.rows)
    since = query.now - int(settings.served_horizon_hours * 3600)
    exposed, _ = feedback_columns(record.exposures if settings.served_horizon_hours else (), snapshot.rows, since)
    categories = snapshot.categories_of(items)
    for i in np.flatnonzero(items[: len(record.click_categories)] == 0).tolist():
        # In the catalogue when it was clicked and gone since: its category stays known to the user all the same.
        categories[i] = snapshot.category_numbers.get(record.click_categories[i], NO_CATEGORY)
    return Clicks(items, categories, times), np.unique(exposed[exposed > 0] - 1)


def _unavailable(lease: Lease, state: UserState, degraded: list[str]) -> NDArray[np.bool_]:
    try:
        return lease.unavailable(state.availability())
    except StateUnavailable as error:
        degraded.append(f"availability: {error}")
        return lease.snapshot.unavailable


def _interests(
    snapshot: Snapshot,
    query: RecallQuery,
    key: bytes,
    allowed: RowRanges,
    settings: ChannelSettings,
    degraded: list[str],
) -> Interests:
    dim = snapshot.assembler.interest_dim
    try:
        stored = snapshot.interests.read(key)
        freshness = _freshness(stored, query.now, snapshot.taxonomy_hash, settings)
        if stored is None or freshness not in (Freshness.FRESH, Freshness.STALE):
            if freshness is Freshness.FOREIGN:
                degraded.append("interests: grounded in another taxonomy than the snapshot's")
            return Interests.none(freshness, key, dim)
        return _grounded(snapshot, stored, freshness, key, allowed, settings)
    except StoreError as error:
        degraded.append(f"interests: {error}")
        return Interests.none(Freshness.UNREADABLE, key, dim)


def _freshness(stored: StoredInterests | None, now: int, taxonomy_hash: int, settings: ChannelSettings) -> Freshness:
    if stored is None:
        return Freshness.MISSING
    if stored.taxonomy_hash != taxonomy_hash:
        return Freshness.FOREIGN
    if now < stored.expires_at:
        return Freshness.FRESH
    too_old = now - stored.generated_at > settings.interest_hard_age_days * _DAY
    return Freshness.TOO_OLD if too_old else Freshness.STALE


def _grounded(
    snapshot: Snapshot,
    stored: StoredInterests,
    freshness: Freshness,
    key: bytes,
    allowed: RowRanges,
    settings: ChannelSettings,
) -> Interests:
    """Keep the interests with rows that may be returned: under STRICT, one whose category is now clicked is over."""
    most = min(settings.interests_used, snapshot.assembler.max_interests)
    positions: list[int] = []
    names: list[str] = []
    ranges: list[RowRanges] = []
    for position, node_id in enumerate(stored.node_ids.tolist()):
        if len(positions) == most:
            break
        node = snapshot.nodes.read(node_id)
        within = None if node is None else allowed.within(node.starts, node.ends)
        if node is not None and within:
            positions.append(position)
            names.append(node.name)
            ranges.append(within)
    kept = np.array(positions, np.int64)
    vectors = np.array(snapshot.interest_vectors[stored.node_ids[kept]])
    weights = stored.weights[kept]
    return Interests(freshness, key, kept, tuple(names), weights, vectors, tuple(ranges), stored.generated_at)


def _tower_inputs(
    snapshot: Snapshot,
    query: RecallQuery,
    resolved: ResolvedQuery,
    user: StoredUser,
    clicks: Clicks,
    interests: Interests,
) -> TowerInputs:
    # The snapshot's long history counts everything up to events_until; only what came later is laid over it.
    later = clicks.times > snapshot.versions.events_until
    return snapshot.assembler.assemble(
        clicks,
        with_clicks(user.long_history, Clicks(clicks.items[later], clicks.categories[later], clicks.times[later])),
        np.where(resolved.profile > 0, resolved.profile, user.profile),
        interests.vectors,
        query.now,
    )
