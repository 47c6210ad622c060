"""The latent interests a user is searched by: which stored record serves, how its weights stand, where it leads.

Two places hold interests of a user: the snapshot, and the near-line store, where they are generated between snapshots.
The newest of those that fit the snapshot serves. Users the snapshot does not know get their own near-line interests
or, without any, those of the population.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.recall.interest_weights import (
    HALF_LIFE,
    ItemEvents,
    faded_counts,
    weight_factors,
)
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.row_ranges import OwnedRanges, RowRanges
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.stores import StoredInterests, StoredNode
from serendipity.channel.state.state import UserState
from serendipity.interests.search_matching import MIN_MATCH
from serendipity.v1 import records_pb2

_DAY = 86_400

_SEARCHES_READ = 5
"""Searches that are grounded, the latest: 50 µs each among 3,000 nodes."""

_SEARCHED = 4
"""Nodes that searches ground in at most; the others keep their places."""


class Freshness(Enum):
    """What became of the user's cached interests."""

    FRESH = "fresh"
    STALE = "past their life, still used"
    MISSING = "none are cached"
    TOO_OLD = "past the hard age"
    FOREIGN = "of another taxonomy or vocabulary"
    UNREADABLE = "unreadable"

    @property
    def is_usable(self) -> bool:
        """Tell whether such interests are searched by."""
        return self in (Freshness.FRESH, Freshness.STALE)


class Origin(Enum):
    """Where interests are stored."""

    SNAPSHOT = "snapshot"
    NEARLINE = "nearline"
    POPULATION = "population"


@dataclass(frozen=True)
class Interests:
    """The latent interests searched by, best first; k of them.

    origin, key: store and record they come from; positions: [k] int64 in that record, −1 for none; names: k; weights:
    [k] float32, 0 to 1, as they stand after feedback; factors: [k] float32, by what feedback moved the stored weights;
    searches: k, the search that each is grounded in, "" for none; vectors: [k, D] float32 text embeddings; grounded:
    the allowed item rows that each is grounded in; generated_at: when the record was made, Unix seconds; own_freshness:
    what became of the user's own interests, which those of the population stand in for; failures: what could not be
    read, in words.
    """

    freshness: Freshness
    origin: Origin
    key: bytes
    positions: NDArray[np.int64]
    names: tuple[str, ...]
    weights: NDArray[np.float32]
    factors: NDArray[np.float32]
    searches: tuple[str, ...]
    vectors: NDArray[np.float32]
    grounded: OwnedRanges
    generated_at: int
    own_freshness: Freshness
    failures: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def are_of_population(self) -> bool:
        """Tell whether these are what everybody unknown gets."""
        return self.origin is Origin.POPULATION


@dataclass(frozen=True)
class InterestEvents:
    """What a user did that tells of interests.

    clicks: items clicked or saved; exposures: items shown; searches: newest first, and how many seconds ago; dismissed:
    [n] int64 rows of items that are not wanted.
    """

    clicks: ItemEvents
    exposures: ItemEvents
    searches: tuple[tuple[str, int], ...] = ()
    dismissed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class _Record:
    """A record that may serve. stored: None where there is none to serve; failure: why it could not be read."""

    origin: Origin
    freshness: Freshness
    stored: StoredInterests | None = None
    failure: str = ""


class InterestReader:
    """Reads interests of one snapshot's users. now: Unix seconds."""

    def __init__(self, snapshot: Snapshot, state: UserState, settings: ChannelSettings, now: int) -> None:
        self._snapshot = snapshot
        self._state = state
        self._settings = settings
        self._now = now

    def of_user(self, user_id: str, key: bytes, events: InterestEvents, allowed: RowRanges) -> Interests:
        """Read the interests of a user whose key in the snapshot is given, DEFAULT_USER for one it does not know."""
        nearline, snapshot = self._nearline(user_id), self._stored(key)
        failures = [record.failure for record in (nearline, snapshot) if record.failure]
        if key == layout.DEFAULT_USER:
            # Whatever the population likes lately, what is known of this user goes before it.
            serving = nearline if nearline.freshness.is_usable else snapshot
            return self._searched(serving, key, events, allowed, nearline.freshness, failures)
        serving = _newest(snapshot, nearline)
        return self._searched(serving, key, events, allowed, serving.freshness, failures)

    def of_stranger(self, events: InterestEvents, allowed: RowRanges) -> Interests:
        """Read the interests of the population alone, for a user of whom nothing stored may be used."""
        record = self._stored(layout.DEFAULT_USER)
        failures = [record.failure] if record.failure else []
        return self._searched(record, layout.DEFAULT_USER, events, allowed, Freshness.MISSING, failures)

    def _stored(self, key: bytes) -> _Record:
        origin = Origin.POPULATION if key == layout.DEFAULT_USER else Origin.SNAPSHOT
        try:
            stored = self._snapshot.interests.read(key)
        except StoreError as error:
            return _Record(origin, Freshness.UNREADABLE, failure=f"interests: {error}")
        if stored is None:
            return _Record(origin, Freshness.MISSING)
        fits = stored.vocabulary_id in (0, self._snapshot.vocabulary_id)
        return _Record(origin, self._freshness(stored, fits), stored)

    def _nearline(self, user_id: str) -> _Record:
        try:
            record = self._state.interests(user_id)
            stored = None if record is None else StoredInterests.of(record)
        except (StateUnavailable, ValueError) as error:
            return _Record(Origin.NEARLINE, Freshness.UNREADABLE, failure=f"near-line interests: {error}")
        if stored is None:
            return _Record(Origin.NEARLINE, Freshness.MISSING)
        fits = stored.vocabulary_id == self._snapshot.vocabulary_id != 0
        return _Record(Origin.NEARLINE, self._freshness(stored, fits), stored)

    def _freshness(self, stored: StoredInterests, fits_vocabulary: bool) -> Freshness:
        if stored.taxonomy_hash != self._snapshot.taxonomy_hash or not fits_vocabulary:
            return Freshness.FOREIGN
        if self._now < stored.expires_at:
            return Freshness.FRESH
        too_old = self._now - stored.generated_at > self._settings.interest_hard_age_days * _DAY
        return Freshness.TOO_OLD if too_old else Freshness.STALE

    def _searched(
        self,
        record: _Record,
        key: bytes,
        events: InterestEvents,
        allowed: RowRanges,
        own_freshness: Freshness,
        failures: list[str],
    ) -> Interests:
        """Keep the interests with rows that may be returned: under STRICT, one whose category is now clicked is over.

        One of which the user does not want several items is over under every policy.

        Those that searches ground in come first, known of the user or not: nobody has to wait until they are generated.
        Of the others the best by their weights as they stand now are kept. A node the snapshot lacks (generated under a
        later one of the same vocabulary, before a rollback) leads nowhere.
        """
        freshness, stored = record.freshness, record.stored
        if freshness is Freshness.FOREIGN and record.origin is not Origin.NEARLINE:
            # Of near-line records that is to be expected after a build; a snapshot's own should fit it.
            failures.append("interests: grounded in another taxonomy than the snapshot's")
        found: list[tuple[int, int, StoredNode]] = []
        if stored is not None and freshness.is_usable:
            try:
                found = self._nodes(stored)
            except StoreError as error:
                failures.append(f"interests: {error}")
                freshness = own_freshness = Freshness.UNREADABLE
        try:
            searched = self._grounded(events.searches)
            known = {node_id for _, node_id, _ in found}
            for node_id in searched:
                if node_id not in known and (node := self._snapshot.nodes.read(node_id)):
                    found.append((-1, node_id, node))
        except StoreError as error:
            failures.append(f"searches: {error}")
            searched = {}
        at = np.array([position for position, _, _ in found], np.int64)
        strengths = np.array([searched.get(node_id, (0.0, ""))[0] for _, node_id, _ in found], np.float32)
        weights = np.zeros(len(at), np.float32)
        if stored is not None:
            weights[at >= 0] = stored.weights[at[at >= 0]]
        groundings = OwnedRanges.of([node.rows for _, _, node in found])
        factors = self._factors(weights, groundings, events)
        # Wanted for one reason or the other.
        moved = 1 - (1 - np.minimum(weights * factors, np.float32(1))) * (1 - strengths)
        within = groundings.within(allowed)
        leads_somewhere = np.zeros(len(at), np.bool_)
        leads_somewhere[within.owners] = True
        if len(events.dismissed):
            dismissed = ItemEvents(events.dismissed, np.zeros(len(events.dismissed)))
            leads_somewhere &= faded_counts(dismissed, groundings, 1.0) < self._settings.dismissed_interest_count
        is_searched = strengths > 0
        moves = (factors != 1).any() or is_searched.any()
        order = np.lexsort((-moved, ~is_searched)) if moves else np.arange(len(at))
        most = min(self._settings.interests_used, self._snapshot.assembler.max_interests)
        kept = order[leads_somewhere[order]][:most]
        node_ids = [found[i][1] for i in kept.tolist()]
        return Interests(
            freshness=freshness,
            origin=record.origin,
            key=key,
            positions=at[kept],
            names=tuple(found[i][2].name for i in kept.tolist()),
            weights=moved[kept],
            factors=factors[kept],
            searches=tuple(searched.get(node_id, (0.0, ""))[1] for node_id in node_ids),
            vectors=self._snapshot.interest_vectors[node_ids],
            grounded=within.take(kept),
            generated_at=0 if stored is None else stored.generated_at,
            own_freshness=own_freshness,
            failures=tuple(failures),
        )

    def _nodes(self, stored: StoredInterests) -> list[tuple[int, int, StoredNode]]:
        """(position in the record, id, node) of those the snapshot has. Raises StoreError."""
        known = [
            (position, node_id, self._snapshot.nodes.read(node_id))
            for position, node_id in enumerate(stored.node_ids.tolist())
            if node_id < len(self._snapshot.interest_vectors)
        ]
        return [(position, node_id, node) for position, node_id, node in known if node is not None]

    def _grounded(self, searches: Sequence[tuple[str, int]]) -> dict[int, tuple[float, str]]:
        """Find the nodes that the latest searches speak of: id → how much, faded by age, and which search does.

        Of those found the strongest are kept, none half as strong as the best. Raises StoreError.
        """
        found: dict[int, tuple[float, str]] = {}
        for search, age in sorted(searches, key=lambda each: each[1])[:_SEARCHES_READ]:
            faded = 2.0 ** (-age / HALF_LIFE)
            for node_id, strength in self._snapshot.nodes.matcher.match(search).items():
                found[node_id] = max(found.get(node_id, (0.0, "")), (faded * strength, search))
        best = sorted(found.items(), key=lambda each: (-each[1][0], each[0]))[:_SEARCHED]
        return {node_id: by for node_id, by in best if by[0] > best[0][1][0] / 2 and by[0] >= MIN_MATCH}

    def _factors(
        self, weights: NDArray[np.float32], groundings: OwnedRanges, events: InterestEvents
    ) -> NDArray[np.float32]:
        if not self._settings.interest_feedback or not (len(events.clicks) or len(events.exposures)):
            return np.ones(len(weights), np.float32)
        clicks, exposures = (faded_counts(some, groundings) for some in (events.clicks, events.exposures))
        return weight_factors(weights, clicks, exposures)


def path_reader(
    interests: Interests, user_id: str, snapshot: Snapshot, state: UserState
) -> Callable[[], Sequence[records_pb2.InterestPath]]:
    """Tell how the paths of interests are read: from the store that the interests are from.

    The function returned raises StoreError or StateUnavailable; it gives no paths where a refresh has replaced the
    interests meanwhile, since the paths are in the order of the newer ones then.
    """

    def read() -> Sequence[records_pb2.InterestPath]:
        if interests.origin is not Origin.NEARLINE:
            return snapshot.paths.read(interests.key)
        record = state.interest_paths(user_id, interests.generated_at)
        return () if record is None else record.paths

    return read


def _newest(snapshot: _Record, nearline: _Record) -> _Record:
    """Choose the record that serves, or that tells best why none does. Of the same moment, the snapshot's."""
    usable = [record for record in (snapshot, nearline) if record.freshness.is_usable]
    stored = [record for record in (snapshot, nearline) if record.stored is not None]
    of_this_taxonomy = [record for record in stored if record.freshness is not Freshness.FOREIGN]
    for records in (usable, of_this_taxonomy, stored):
        if records:
            return max(records, key=lambda record: record.stored.generated_at if record.stored else 0)
    return nearline if nearline.freshness is Freshness.UNREADABLE else snapshot
