"""Everything the stages need to know of one user, read in one pass.

Snapshot, acknowledged feedback and the request's own events are laid over one another here; nothing after this
reads a user's records again, except the paths of the reasons that are returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import StateUnavailable, StoreError
from serendipity.channel.nearline.priority import refresh_priority
from serendipity.channel.recall.folded_user import FoldedUser
from serendipity.channel.recall.interest_weights import ItemEvents
from serendipity.channel.recall.interests import Freshness, InterestEvents, InterestReader, Interests
from serendipity.channel.recall.novel_categories import NovelCategories, read_novel_categories
from serendipity.channel.recall.query import RecallQuery, warning
from serendipity.channel.recall.resolution import TAKEN_TYPES, ResolvedQuery, resolve
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import Lease
from serendipity.channel.snapshot.row_ranges import RowRanges
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.stores import StoredUser, feedback_columns
from serendipity.channel.state.feedback_clicks import feedback_clicks
from serendipity.channel.state.state import UserState
from serendipity.features import LongHistory, TowerInputs, with_clicks
from serendipity.novelty import CLICK_WINDOW, Clicks, clicked_categories, latest
from serendipity.v1 import channel_pb2, records_pb2

_DAY = 86_400
_UNPROVED = "novelty is judged without it"
"""Said where clicks cannot be read: what is returned is novel only to the clicks that can."""

REFRESH_CAUSES = {
    Freshness.STALE: records_pb2.REFRESH_CAUSE_STALE,
    Freshness.TOO_OLD: records_pb2.REFRESH_CAUSE_TOO_OLD,
    Freshness.FOREIGN: records_pb2.REFRESH_CAUSE_FOREIGN,
    Freshness.MISSING: records_pb2.REFRESH_CAUSE_MISSING,
    # What cannot be read is as good as missing, and is mended by generating it.
    Freshness.UNREADABLE: records_pb2.REFRESH_CAUSE_MISSING,
}
"""Why interests in a state are wanted anew; fresh ones are not."""


@dataclass(frozen=True)
class Hydrated:
    """One user, ready to be searched for.

    clicks: latest 200 of snapshot ∪ feedback ∪ request; clicked: [c + 1] bool by category number;
    listed: [c + 1] bool, categories that the request's lists leave; dismissed_categories: [c + 1] bool, those of which
    the user does not want several items; allowed: [c + 1] bool, those that may be returned (STRICT leaves out the
    clicked ones); ranges: rows of these; unavailable: [n] bool; excluded, served, repeated, dismissed: item rows;
    interests, novel_categories: what is searched by;
    folded: the user in the graph, None where there is none or the source is switched off; is_known: the user has a
    record in the snapshot;
    inputs: a batch of one for the user tower;
    stored_vector: [d] float32, stands in for the tower; warnings; failures: what was down or unreadable, in words;
    forgotten: the user is on the erasure list, and everything here is a stranger's.
    """

    query: RecallQuery
    clicks: Clicks
    clicked: NDArray[np.bool_]
    listed: NDArray[np.bool_]
    dismissed_categories: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    ranges: RowRanges
    unavailable: NDArray[np.bool_]
    excluded: NDArray[np.int64]
    served: NDArray[np.int64]
    repeated: NDArray[np.int64]
    dismissed: NDArray[np.int64]
    interests: Interests
    novel_categories: NovelCategories
    folded: FoldedUser | None
    is_known: bool
    inputs: TowerInputs
    stored_vector: NDArray[np.float32] | None
    warnings: tuple[channel_pb2.Warning, ...]
    failures: tuple[str, ...]
    forgotten: bool

    @property
    def num_blocked(self) -> int:
        """Rows that may be found and not returned: they are searched for besides, and counted as they are removed."""
        return len(self.excluded) + len(self.served) + len(self.repeated) + len(self.dismissed)


@dataclass(frozen=True)
class _Record:
    """What the snapshot holds of a user, or what stands in. key: of the record; failures: what could not be read."""

    key: bytes
    user: StoredUser
    is_known: bool
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Feedback:
    """A user's acknowledged feedback, as in ResolvedQuery. says_something: there is something to reason from."""

    clicks: Clicks
    taken: ItemEvents
    exposures: ItemEvents
    favourites: ItemEvents
    dismissals: ItemEvents
    searches: tuple[tuple[str, int], ...]
    says_something: bool
    failure: str = ""

    @classmethod
    def none(cls, failure: str = "") -> _Feedback:
        nothing = ItemEvents.none()
        return cls(Clicks.empty(), nothing, nothing, nothing, nothing, (), says_something=False, failure=failure)


def hydrate(lease: Lease, query: RecallQuery, state: UserState, settings: ChannelSettings) -> Hydrated:
    """Read what is known of the query's user. Never fails for the user's sake: what is missing is said.

    Interests that are missing, stale or of another catalogue are asked for near-line; the answer does not wait. Of a
    user on the erasure list nothing is read and nothing is asked for: a stranger is answered.
    """
    snapshot = lease.snapshot
    resolved = resolve(query, snapshot)
    forgotten, unsure = _is_forgotten(query, state)
    record = _user(snapshot, query, forgotten)
    user = record.user
    feedback = _Feedback.none() if forgotten else _feedback(snapshot, query, state, settings)
    # No event is as young as that where nothing counts as served.
    horizon = settings.served_horizon_hours * 3_600 or -1
    served = _rows_within(horizon, resolved.exposures, feedback.exposures)
    dismissed = _rows_within(settings.dismissed_days * 86_400, resolved.dismissals, feedback.dismissals)
    per_category = np.bincount(snapshot.categories_of(dismissed + 1), minlength=snapshot.num_categories + 1)
    dismissed_categories = per_category >= settings.dismissed_category_count
    clicked_items = ItemEvents.of(feedback.clicks.items, feedback.clicks.times, query.now)
    events = InterestEvents(
        ItemEvents.union(clicked_items, feedback.favourites, resolved.favourites),
        feedback.exposures,
        tuple(dict.fromkeys((*resolved.searches, *feedback.searches))),
        dismissed,
    )
    clicks = latest(resolved.clicks, feedback.clicks, user.clicks)
    clicked = clicked_categories(clicks, snapshot.num_categories)
    # A list of novel categories leads to no others, whatever the policy.
    left = resolved.categories & ~dismissed_categories
    novel = left & ~clicked
    allowed = novel if query.novelty_policy == channel_pb2.NOVELTY_POLICY_STRICT else left
    ranges = RowRanges.of_categories(allowed, snapshot.category_offsets)
    reader = InterestReader(snapshot, state, settings, query.now)
    if forgotten:
        interests = reader.of_stranger(events, ranges)
    else:
        interests = reader.of_user(query.user_id, record.key, events, ranges)
        if record.key != layout.DEFAULT_USER or feedback.says_something:
            _want_interests(snapshot, query, state, interests.own_freshness, (feedback.clicks, user.clicks))
    novel_categories = NovelCategories.none()
    # As where the source is switched off: no list answers, and one that is missing is not missed.
    if not query.excludes(channel_pb2.SOURCE_GROUP):
        group_id = None if forgotten else user.group_id
        novel_categories = read_novel_categories(snapshot, state, settings, group_id, clicks, novel)
    folded = None
    if snapshot.graph is not None and settings.graph_source and not query.excludes(channel_pb2.SOURCE_GRAPH):
        folded = FoldedUser(snapshot.graph, clicks, user.held_interests)
    repeated = _repeated(query, horizon, clicks, feedback.taken, resolved.taken)
    unavailable, unchanged = _unavailable(lease, state)
    return Hydrated(
        query=query,
        clicks=clicks,
        clicked=clicked,
        listed=resolved.categories,
        dismissed_categories=dismissed_categories,
        allowed=allowed,
        ranges=ranges,
        unavailable=unavailable,
        excluded=resolved.excluded,
        served=served,
        repeated=repeated[allowed[snapshot.categories_of(repeated + 1)]],
        dismissed=dismissed,
        interests=interests,
        novel_categories=novel_categories,
        folded=folded,
        is_known=record.is_known,
        inputs=_tower_inputs(snapshot, query, resolved, user, clicks, interests),
        stored_vector=user.vector,
        warnings=(*query.warnings, *resolved.warnings, *_warnings(query, state, record)),
        failures=(
            *unsure,
            *record.failures,
            *((feedback.failure,) if feedback.failure else ()),
            *interests.failures,
            *novel_categories.failures,
            *unchanged,
        ),
        forgotten=forgotten,
    )


def _is_forgotten(query: RecallQuery, state: UserState) -> tuple[bool, tuple[str, ...]]:
    try:
        return state.is_forgotten(query.user_id), ()
    except StateUnavailable as error:
        # Whoever asked to be forgotten must not be recognised because a file is broken.
        return True, (f"erasures: {error}; answered as a stranger",)


def _user(snapshot: Snapshot, query: RecallQuery, forgotten: bool) -> _Record:
    key = layout.user_key(query.user_id)
    failures: tuple[str, ...] = ()
    try:
        user = None if forgotten else snapshot.users.read(key)
        if user is not None:
            return _Record(key, user, is_known=True, failures=())
    except StoreError as error:
        failures = (f"user record: {error}; {_UNPROVED}",)
    # Of a user whose record is there and cannot be read it is not said that there is none.
    is_known = bool(failures)
    try:
        user = snapshot.users.read(layout.DEFAULT_USER)
    except StoreError as error:
        user = None
        failures = (*failures, f"record of cold users: {error}")
    nobody = StoredUser(Clicks.empty(), LongHistory.empty(), snapshot.assembler.encode_profile({}), None)
    return _Record(layout.DEFAULT_USER, user or nobody, is_known, failures)


def _warnings(query: RecallQuery, state: UserState, record: _Record) -> Iterator[channel_pb2.Warning]:
    if not record.is_known:
        yield warning(channel_pb2.WARNING_CODE_COLD_USER, "user_id", "not in the snapshot: a cold start")
    if not state.owns(query.user_id):
        message = "another host owns this user's feedback: judged without it"
        yield warning(channel_pb2.WARNING_CODE_NOT_OWNER, "user_id", message)


def _feedback(snapshot: Snapshot, query: RecallQuery, state: UserState, settings: ChannelSettings) -> _Feedback:
    """Read what came as feedback: of exposures, those within the horizon and those that tell of interests."""
    try:
        record = state.feedback(query.user_id)
    except StateUnavailable as error:
        return _Feedback.none(f"feedback: {error}; {_UNPROVED}")
    if record is None:
        return _Feedback.none()
    clicks = feedback_clicks(snapshot, record)
    # What a clock that was ahead stamped must not push out the request's own clicks.
    clicks = replace(clicks, times=np.minimum(clicks.times, query.now))
    horizon = int(settings.served_horizon_hours * 3600)
    # Beyond every event where nothing counts as served.
    since = query.now - horizon if horizon else np.iinfo(np.int64).max
    at_least = settings.interest_exposures if settings.interest_feedback else 0
    exposed, exposure_times = feedback_columns(record.exposures, snapshot.item_ids, since, at_least)
    saved = [event for event in record.signals if event.type == channel_pb2.EVENT_TYPE_FAVOURITE]
    others = [event for event in record.signals if event.type in TAKEN_TYPES]
    taken, favourites, dismissals = (
        feedback_columns(some, snapshot.item_ids) for some in (others, saved, record.dismissals)
    )
    return _Feedback(
        clicks=clicks,
        taken=ItemEvents.of(*taken, query.now),
        exposures=ItemEvents.of(exposed, exposure_times, query.now),
        favourites=ItemEvents.of(*favourites, query.now),
        dismissals=ItemEvents.of(*dismissals, query.now),
        searches=tuple((search.query, max(query.now - search.time, 0)) for search in record.searches),
        says_something=bool(record.clicks or record.searches or record.signals),
    )


def _repeated(
    query: RecallQuery, horizon: float, clicks: Clicks, signals: ItemEvents, taken: ItemEvents
) -> NDArray[np.int64]:
    """Rows of what would be repeated: clicked or ordered in the request, or within the served horizon.

    clicks: all that are known; signals: clicks and orders in feedback that are no clicks to the snapshot; taken: those
    of the request. Under STRICT the categories of clicks are left out as a whole: only the others are looked at.
    """
    is_strict = query.novelty_policy == channel_pb2.NOVELTY_POLICY_STRICT
    if query.allow_repeats and not is_strict:
        return np.empty(0, np.int64)
    known = ItemEvents.none() if is_strict else ItemEvents.of(clicks.items, clicks.times, query.now)
    lately = _rows_within(horizon, known, signals)
    rows: NDArray[np.int64] = np.union1d(lately, taken.rows)
    return rows


def _rows_within(seconds: float, *events: ItemEvents) -> NDArray[np.int64]:
    """Rows of the items of events at most so old, ascending, each once."""
    rows: NDArray[np.int64] = np.unique(np.concatenate([each.rows[each.ages <= seconds] for each in events]))
    return rows


def _want_interests(
    snapshot: Snapshot, query: RecallQuery, state: UserState, freshness: Freshness, stored: Sequence[Clicks]
) -> None:
    """Ask for interests, unless they are fresh, nobody would generate them, or another host owns the user.

    stored: clicks, newest first; the request's own are gone when a model is asked.
    """
    cause = REFRESH_CAUSES.get(freshness)
    if cause is None or not snapshot.interest_gpt or not state.owns(query.user_id):
        return
    num_clicks = min(CLICK_WINDOW, sum(map(len, stored)))
    latest_click = max((int(clicks.times[0]) for clicks in stored if len(clicks)), default=0)
    state.want_interests(query.user_id, cause, refresh_priority(cause, num_clicks, latest_click, query.now))


def _unavailable(lease: Lease, state: UserState) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    try:
        return lease.unavailable(state.availability()), ()
    except StateUnavailable as error:
        return lease.snapshot.unavailable, (f"availability: {error}",)


def _tower_inputs(
    snapshot: Snapshot,
    query: RecallQuery,
    resolved: ResolvedQuery,
    user: StoredUser,
    clicks: Clicks,
    interests: Interests,
) -> TowerInputs:
    # A long history of the snapshot counts everything up to events_until: only what came later is laid over it.
    later = (clicks.times > snapshot.events_until) | (not len(user.long_history.categories))
    return snapshot.assembler.assemble(
        clicks,
        with_clicks(user.long_history, Clicks(clicks.items[later], clicks.categories[later], clicks.times[later])),
        np.where(resolved.profile > 0, resolved.profile, user.profile),
        interests.vectors,
        query.now,
    )
