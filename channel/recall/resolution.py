"""What a query means in one snapshot: its names as the numbers of that catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.interest_weights import ItemEvents
from serendipity.channel.recall.query import RecallQuery, warning, warning_of
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.item_ids import UNKNOWN
from serendipity.novelty import CLICK_WINDOW, NO_CATEGORY, Clicks
from serendipity.v1 import channel_pb2

TAKEN_TYPES = frozenset((channel_pb2.EVENT_TYPE_CLICK, channel_pb2.EVENT_TYPE_ORDER))
"""Types of events by which a user has taken an item, whether they count as clicks to a snapshot or not."""

_USED_TYPES = TAKEN_TYPES | frozenset(
    (
        channel_pb2.EVENT_TYPE_EXPOSURE,
        channel_pb2.EVENT_TYPE_FAVOURITE,
        channel_pb2.EVENT_TYPE_SEARCH,
        channel_pb2.EVENT_TYPE_NOT_INTERESTED,
    )
)
"""Types of recent events that change something, beside those that count as clicks."""


@dataclass(frozen=True)
class ResolvedQuery:
    """What a query means in one snapshot.

    clicks: the latest 200 of the request's events that count as clicks, newest first; taken, exposures,
    favourites, dismissals: items clicked or ordered, shown, saved and not wanted; searches: newest first, and how many
    seconds ago;
    excluded: [m] int64 item rows;
    categories: [num_categories + 1] bool, category numbers that allow and deny lists leave;
    profile: [P] int32 value numbers, 0 where the request says nothing; warnings: names the snapshot does not know.
    """

    clicks: Clicks
    taken: ItemEvents
    exposures: ItemEvents
    favourites: ItemEvents
    dismissals: ItemEvents
    searches: tuple[tuple[str, int], ...]
    excluded: NDArray[np.int64]
    categories: NDArray[np.bool_]
    profile: NDArray[np.int32]
    warnings: tuple[channel_pb2.Warning, ...]


def resolve(query: RecallQuery, snapshot: Snapshot) -> ResolvedQuery:
    """Turn the query's names into numbers of this snapshot; unknown ones are ignored and warned of.

    An item outside the catalogue still counts as a click (without a category), and an allow list of which
    nothing is known allows nothing: it must not turn into "everything".
    """
    warnings: list[channel_pb2.Warning] = []
    used = snapshot.click_types | _USED_TYPES
    events = [event for event in query.recent_events if event.type in used]
    if len(events) < len(query.recent_events):
        warnings.append(_ignored(query, used))
    searches = [event for event in events if event.type == channel_pb2.EVENT_TYPE_SEARCH]
    on_items = [event for event in events if event.type != channel_pb2.EVENT_TYPE_SEARCH]
    ids = [event.item_id for event in on_items]
    rows = snapshot.item_ids.rows_of(ids)
    excluded = snapshot.item_ids.rows_of(query.exclude_item_ids)
    for field, named, found in (("recent_events", ids, rows), ("exclude_item_ids", query.exclude_item_ids, excluded)):
        if len(unknown := np.flatnonzero(found == UNKNOWN)):
            distinct = list(dict.fromkeys(named[i] for i in unknown.tolist()))
            warnings.append(warning_of(channel_pb2.WARNING_CODE_UNKNOWN_ITEM, field, distinct))
    items = rows + 1
    types = np.array([event.type for event in on_items], np.int64)
    times = np.array([event.time for event in on_items], np.int64)
    is_click = np.array([event.type in snapshot.click_types for event in on_items], np.bool_)
    if (surplus := int(is_click.sum()) - CLICK_WINDOW) > 0:
        message = f"clicks older than the latest {CLICK_WINDOW}"
        warnings.append(warning(channel_pb2.WARNING_CODE_EVENTS_TRUNCATED, "recent_events", message, surplus))
    clicked = np.flatnonzero(is_click)[:CLICK_WINDOW]
    taken, exposures, favourites, dismissals = (
        ItemEvents.of(items[where], times[where], query.now)
        for where in (
            is_click | np.isin(types, list(TAKEN_TYPES)),
            types == channel_pb2.EVENT_TYPE_EXPOSURE,
            (types == channel_pb2.EVENT_TYPE_FAVOURITE) & ~is_click,
            types == channel_pb2.EVENT_TYPE_NOT_INTERESTED,
        )
    )
    return ResolvedQuery(
        clicks=Clicks(items[clicked], snapshot.categories_of(items[clicked]), times[clicked]),
        taken=taken,
        exposures=exposures,
        favourites=favourites,
        dismissals=dismissals,
        searches=tuple((event.query, query.now - event.time) for event in searches),
        excluded=excluded[excluded != UNKNOWN],
        categories=_categories(query, snapshot, warnings),
        profile=_profile(query, snapshot, warnings),
        warnings=tuple(warnings),
    )


def _ignored(query: RecallQuery, used: frozenset[int]) -> channel_pb2.Warning:
    """Warn of events of types that change nothing."""
    ignored = [event.type for event in query.recent_events if event.type not in used]
    found, expected = (
        ", ".join(channel_pb2.EventType.Name(number).removeprefix("EVENT_TYPE_") for number in sorted(types))
        for types in (set(ignored), used)
    )
    message = f"found {found}, which changes nothing in a request; expected {expected}"
    return warning(channel_pb2.WARNING_CODE_EVENT_IGNORED, "recent_events", message, len(ignored))


def _categories(query: RecallQuery, snapshot: Snapshot, warnings: list[channel_pb2.Warning]) -> NDArray[np.bool_]:
    allowed = np.full(snapshot.num_categories + 1, not query.allow_categories)
    for name, names, value in (
        ("allow_categories", query.allow_categories, True),
        ("deny_categories", query.deny_categories, False),
    ):
        numbers = {category: snapshot.category_number(category) for category in names}
        if unknown := [category for category, number in numbers.items() if number == NO_CATEGORY]:
            warnings.append(warning_of(channel_pb2.WARNING_CODE_UNKNOWN_CATEGORY, name, unknown))
        allowed[[number for number in numbers.values() if number != NO_CATEGORY]] = value
    allowed[NO_CATEGORY] = False
    return allowed


def _profile(query: RecallQuery, snapshot: Snapshot, warnings: list[channel_pb2.Warning]) -> NDArray[np.int32]:
    fields = snapshot.assembler.profile_fields
    unknown = [f"{name}={value}" for name, value in sorted(query.profile.items()) if value not in fields.get(name, {})]
    if unknown:
        warnings.append(warning_of(channel_pb2.WARNING_CODE_UNKNOWN_PROFILE_VALUE, "profile", unknown))
    return snapshot.assembler.encode_profile(query.profile)
