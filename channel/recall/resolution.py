"""What a query means in one snapshot: its names as the numbers of that catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.query import RecallQuery, warning_of
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.item_ids import UNKNOWN
from serendipity.novelty import NO_CATEGORY, Clicks
from serendipity.v1 import channel_pb2


@dataclass(frozen=True)
class ResolvedQuery:
    """What a query means in one snapshot.

    clicks: the request's events that count as clicks, newest first; excluded: [m] int64 item rows;
    categories: [num_categories + 1] bool, category numbers that allow and deny lists leave;
    profile: [P] int32 value numbers, 0 where the request says nothing; warnings: names the snapshot does not know.
    """

    clicks: Clicks
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
    clicks = [event for event in query.recent_events if event.item_id and event.type in snapshot.click_types]
    clicked = snapshot.item_ids.rows_of([event.item_id for event in clicks])
    excluded = snapshot.item_ids.rows_of(query.exclude_item_ids)
    for field, ids, rows in (
        ("recent_events", [event.item_id for event in clicks], clicked),
        ("exclude_item_ids", query.exclude_item_ids, excluded),
    ):
        if len(unknown := np.flatnonzero(rows == UNKNOWN)):
            named = list(dict.fromkeys(ids[i] for i in unknown.tolist()))
            warnings.append(warning_of(channel_pb2.WARNING_CODE_UNKNOWN_ITEM, field, named))
    items = clicked + 1
    return ResolvedQuery(
        clicks=Clicks(items, snapshot.categories_of(items), np.array([event.time for event in clicks], np.int64)),
        excluded=excluded[excluded != UNKNOWN],
        categories=_categories(query, snapshot, warnings),
        profile=_profile(query, snapshot, warnings),
        warnings=tuple(warnings),
    )


def _categories(query: RecallQuery, snapshot: Snapshot, warnings: list[channel_pb2.Warning]) -> NDArray[np.bool_]:
    allowed = np.full(snapshot.num_categories + 1, not query.allow_categories)
    for name, names, value in (
        ("allow_categories", query.allow_categories, True),
        ("deny_categories", query.deny_categories, False),
    ):
        unknown = [category for category in names if category not in snapshot.category_numbers]
        if unknown:
            warnings.append(warning_of(channel_pb2.WARNING_CODE_UNKNOWN_CATEGORY, name, unknown))
        known = [snapshot.category_numbers[category] for category in names if category in snapshot.category_numbers]
        allowed[known] = value
    allowed[NO_CATEGORY] = False
    return allowed


def _profile(query: RecallQuery, snapshot: Snapshot, warnings: list[channel_pb2.Warning]) -> NDArray[np.int32]:
    fields = snapshot.assembler.profile_fields
    unknown = [f"{name}={value}" for name, value in sorted(query.profile.items()) if value not in fields.get(name, {})]
    if unknown:
        warnings.append(warning_of(channel_pb2.WARNING_CODE_UNKNOWN_PROFILE_VALUE, "profile", unknown))
    return snapshot.assembler.encode_profile(query.profile)
