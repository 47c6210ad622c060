"""One request, validated and normalised once at the edge.

`parse_query` reads a RecallRequest without looking at any snapshot; `resolve` then turns its names into the
numbers of the snapshot that answers it. Nothing behind this file sees the request message.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import FieldViolation, InvalidQuery
from serendipity.novelty import CLICK_WINDOW, NO_CATEGORY, Clicks
from serendipity.v1 import channel_pb2

if TYPE_CHECKING:
    from serendipity.channel.snapshot.snapshot import Snapshot

MAX_COUNT = 1_000
MAX_RECENT_EVENTS = 1_000
MAX_EXCLUDED = 10_000
MAX_CATEGORIES = 1_000
MAX_PROFILE = 64
MAX_QUOTAS = 16
MAX_TAG_LENGTH = 128
MAX_USER_ID_LENGTH = 10_000
"""Hard caps, as channel.proto states them (the last one protects logs and keys)."""

_LISTED = 10
"""Entries a warning names."""

_SHOWN = 100
"""Characters of an entry that a warning shows: what is wrong with a request must not outweigh the answer."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_Key = TypeVar("_Key", bound=Hashable)


class NoveltyPolicy(IntEnum):
    """How strictly novelty is meant; see NoveltyPolicy in channel.proto."""

    STRICT = channel_pb2.NOVELTY_POLICY_STRICT
    SOFT = channel_pb2.NOVELTY_POLICY_SOFT
    OFF = channel_pb2.NOVELTY_POLICY_OFF


class Source(IntEnum):
    """Where a candidate was found; see Source in channel.proto."""

    INTEREST = channel_pb2.SOURCE_INTEREST
    COLLABORATIVE = channel_pb2.SOURCE_COLLABORATIVE
    GROUP = channel_pb2.SOURCE_GROUP


KNOWN_SOURCES = frozenset(int(source) for source in Source)
"""Numbers of Source."""


class WarningCode(IntEnum):
    """What was normalised; see WarningCode in channel.proto."""

    UNKNOWN_CATEGORY = channel_pb2.WARNING_CODE_UNKNOWN_CATEGORY
    UNKNOWN_ITEM = channel_pb2.WARNING_CODE_UNKNOWN_ITEM
    DUPLICATES_MERGED = channel_pb2.WARNING_CODE_DUPLICATES_MERGED
    EVENTS_TRUNCATED = channel_pb2.WARNING_CODE_EVENTS_TRUNCATED
    EVENT_IGNORED = channel_pb2.WARNING_CODE_EVENT_IGNORED
    UNKNOWN_PROFILE_VALUE = channel_pb2.WARNING_CODE_UNKNOWN_PROFILE_VALUE
    COLD_USER = channel_pb2.WARNING_CODE_COLD_USER
    NOT_OWNER = channel_pb2.WARNING_CODE_NOT_OWNER
    CLOCK_SKEW = channel_pb2.WARNING_CODE_CLOCK_SKEW


@dataclass(frozen=True)
class QueryWarning:
    """Something its caller should know about a request. field: in proto naming; count: entries concerned."""

    code: WarningCode
    field: str
    message: str
    count: int = 1

    @classmethod
    def listing(cls, code: WarningCode, field: str, entries: Iterable[str]) -> QueryWarning:
        """Name the entries concerned, the first ten of them."""
        named = list(entries)
        shown = [entry if len(entry) <= _SHOWN else f"{entry[:_SHOWN]}…" for entry in named[:_LISTED]]
        more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
        return cls(code, field, ", ".join(shown) + more, len(named))


@dataclass(frozen=True)
class RecentEvent:
    """One event of the request. type: number of EventType; time: Unix seconds, never in the future."""

    item_id: str
    type: int
    time: int
    query: str


@dataclass(frozen=True)
class SourceBounds:
    """How many candidates of an answer may carry one source."""

    min_count: int
    max_count: int


@dataclass(frozen=True)
class RecallQuery:
    """A request that can be answered, independent of any snapshot.

    now: Unix seconds; recent_events: newest first, at most 200; exclude_item_ids, allow_categories and
    deny_categories without duplicates; an empty allow list allows everything; experiment_tag and explain
    are carried through; warnings: what was normalised.
    """

    user_id: str
    count: int
    now: int
    recent_events: tuple[RecentEvent, ...] = ()
    profile: Mapping[str, str] = field(default_factory=dict)
    exclude_item_ids: tuple[str, ...] = ()
    allow_categories: tuple[str, ...] = ()
    deny_categories: tuple[str, ...] = ()
    novelty_policy: NoveltyPolicy = NoveltyPolicy.STRICT
    source_bounds: Mapping[Source, SourceBounds] = field(default_factory=dict)
    experiment_tag: str = ""
    explain: bool = False
    warnings: tuple[QueryWarning, ...] = ()

    def excludes(self, source: Source) -> bool:
        """Tell whether no candidate may carry a source: its most is 0."""
        bounds = self.source_bounds.get(source)
        return bounds is not None and bounds.max_count == 0


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
    warnings: tuple[QueryWarning, ...]


def parse_query(request: channel_pb2.RecallRequest, now: int) -> RecallQuery:
    """Validate and normalise a request. now: Unix seconds.

    Raises InvalidQuery naming every field that cannot be repaired; all else is normalised with a warning.
    """
    violations = [*_user_id_violations(request.user_id), *_count_violations(request), *_enum_violations(request)]
    if violations:
        raise InvalidQuery(violations)
    warnings: list[QueryWarning] = []
    return RecallQuery(
        user_id=request.user_id,
        count=request.count,
        now=now,
        recent_events=_recent_events(request.recent_events, now, warnings),
        profile=dict(request.profile),
        exclude_item_ids=_merged(request.exclude_item_ids, "exclude_item_ids", warnings),
        allow_categories=_merged(request.allow_categories, "allow_categories", warnings),
        deny_categories=_merged(request.deny_categories, "deny_categories", warnings),
        novelty_policy=NoveltyPolicy(request.novelty_policy or NoveltyPolicy.STRICT),
        source_bounds=_source_bounds(request.source_quotas, warnings),
        experiment_tag=request.experiment_tag,
        explain=request.explain,
        warnings=tuple(warnings),
    )


def resolve(query: RecallQuery, snapshot: Snapshot) -> ResolvedQuery:
    """Turn the query's names into numbers of this snapshot; unknown ones are ignored and warned of.

    An item outside the catalogue still counts as a click (without a category), and an allow list of which
    nothing is known allows nothing: it must not turn into "everything".
    """
    warnings: list[QueryWarning] = []
    clicks = [event for event in query.recent_events if event.item_id and event.type in snapshot.click_types]
    rows = [snapshot.rows.get(event.item_id, -1) for event in clicks]
    unknown = list(dict.fromkeys(event.item_id for event, row in zip(clicks, rows, strict=True) if row < 0))
    if unknown:
        warnings.append(QueryWarning.listing(WarningCode.UNKNOWN_ITEM, "recent_events", unknown))
    items = np.array(rows, np.int64) + 1
    excluded = [snapshot.rows.get(item_id, -1) for item_id in query.exclude_item_ids]
    unknown = [item_id for item_id, row in zip(query.exclude_item_ids, excluded, strict=True) if row < 0]
    if unknown:
        warnings.append(QueryWarning.listing(WarningCode.UNKNOWN_ITEM, "exclude_item_ids", unknown))
    return ResolvedQuery(
        clicks=Clicks(items, snapshot.categories_of(items), np.array([event.time for event in clicks], np.int64)),
        excluded=np.array([row for row in excluded if row >= 0], np.int64),
        categories=_categories(query, snapshot, warnings),
        profile=_profile(query, snapshot, warnings),
        warnings=tuple(warnings),
    )


def _user_id_violations(user_id: str) -> Iterable[FieldViolation]:
    if not user_id:
        yield FieldViolation("user_id", "is empty; expected the user's id as in the host's logs")
    elif len(user_id) > MAX_USER_ID_LENGTH:
        yield FieldViolation("user_id", f"has {len(user_id)} characters; expected at most {MAX_USER_ID_LENGTH}")
    elif found := _CONTROL.search(user_id):
        yield FieldViolation("user_id", f"holds the control character {found.group()!r}; expected none")


def _count_violations(request: channel_pb2.RecallRequest) -> Iterable[FieldViolation]:
    if not 1 <= request.count <= MAX_COUNT:
        yield FieldViolation("count", f"found {request.count}, expected 1 to {MAX_COUNT}")
    for name, length, cap in (
        ("recent_events", len(request.recent_events), MAX_RECENT_EVENTS),
        ("profile", len(request.profile), MAX_PROFILE),
        ("exclude_item_ids", len(request.exclude_item_ids), MAX_EXCLUDED),
        ("allow_categories", len(request.allow_categories), MAX_CATEGORIES),
        ("deny_categories", len(request.deny_categories), MAX_CATEGORIES),
        ("source_quotas", len(request.source_quotas), MAX_QUOTAS),
    ):
        if length > cap:
            yield FieldViolation(name, f"has {length} entries; expected at most {cap}")
    if len(request.experiment_tag) > MAX_TAG_LENGTH:
        length = len(request.experiment_tag)
        yield FieldViolation("experiment_tag", f"has {length} characters; expected at most {MAX_TAG_LENGTH}")


def _enum_violations(request: channel_pb2.RecallRequest) -> Iterable[FieldViolation]:
    if request.novelty_policy not in (0, *NoveltyPolicy):
        yield FieldViolation("novelty_policy", f"found {request.novelty_policy}, expected a NoveltyPolicy")
    for i, quota in enumerate(request.source_quotas):
        if int(quota.source) not in KNOWN_SOURCES:
            known = ", ".join(source.name for source in Source)
            yield FieldViolation(f"source_quotas[{i}].source", f"found {quota.source}, expected one of {known}")
        if quota.min_count > quota.max_count:
            yield FieldViolation(
                f"source_quotas[{i}].min_count",
                f"found {quota.min_count}, expected at most max_count, which is {quota.max_count}",
            )


def _recent_events(
    sent: Iterable[channel_pb2.Event], now: int, warnings: list[QueryWarning]
) -> tuple[RecentEvent, ...]:
    events: list[RecentEvent] = []
    ignored = skewed = 0
    for event in sent:
        known_type = event.type != 0 and event.type in channel_pb2.EventType.values()
        is_search = event.type == channel_pb2.EVENT_TYPE_SEARCH
        if not known_type or not (event.query if is_search else event.item_id):
            ignored += 1
            continue
        time = event.time.seconds if event.HasField("time") else now
        if time > now:
            skewed += 1
            time = now
        events.append(RecentEvent(event.item_id, event.type, time, event.query))
    distinct = list(dict.fromkeys(events))
    for count, code, message in (
        (ignored, WarningCode.EVENT_IGNORED, "events without a known type, or without an item or a query"),
        (skewed, WarningCode.CLOCK_SKEW, "events of the future, taken as now"),
        (len(events) - len(distinct), WarningCode.DUPLICATES_MERGED, "events sent more than once"),
        (len(distinct) - CLICK_WINDOW, WarningCode.EVENTS_TRUNCATED, f"older than the latest {CLICK_WINDOW}"),
    ):
        if count > 0:
            warnings.append(QueryWarning(code, "recent_events", message, count))
    distinct.sort(key=lambda event: -event.time)
    return tuple(distinct[:CLICK_WINDOW])


def _merged(sent: Iterable[_Key], name: str, warnings: list[QueryWarning]) -> tuple[_Key, ...]:
    counts: dict[_Key, int] = {}
    for entry in sent:
        counts[entry] = counts.get(entry, 0) + 1
    repeated = [str(entry) for entry, count in counts.items() if count > 1]
    if repeated:
        warnings.append(QueryWarning.listing(WarningCode.DUPLICATES_MERGED, name, repeated))
    return tuple(counts)


def _source_bounds(
    quotas: Iterable[channel_pb2.SourceQuota], warnings: list[QueryWarning]
) -> dict[Source, SourceBounds]:
    bounds: dict[Source, SourceBounds] = {}
    repeated: list[str] = []
    for quota in quotas:
        source = Source(quota.source)
        if source in bounds:
            repeated.append(source.name)
        bounds[source] = SourceBounds(quota.min_count, quota.max_count)
    if repeated:
        warnings.append(QueryWarning.listing(WarningCode.DUPLICATES_MERGED, "source_quotas", repeated))
    return bounds


def _categories(query: RecallQuery, snapshot: Snapshot, warnings: list[QueryWarning]) -> NDArray[np.bool_]:
    allowed = np.full(snapshot.num_categories + 1, not query.allow_categories)
    for name, names, value in (
        ("allow_categories", query.allow_categories, True),
        ("deny_categories", query.deny_categories, False),
    ):
        unknown = [category for category in names if category not in snapshot.category_numbers]
        if unknown:
            warnings.append(QueryWarning.listing(WarningCode.UNKNOWN_CATEGORY, name, unknown))
        known = [snapshot.category_numbers[category] for category in names if category in snapshot.category_numbers]
        allowed[known] = value
    allowed[NO_CATEGORY] = False
    return allowed


def _profile(query: RecallQuery, snapshot: Snapshot, warnings: list[QueryWarning]) -> NDArray[np.int32]:
    fields = snapshot.assembler.profile_fields
    unknown = [f"{name}={value}" for name, value in sorted(query.profile.items()) if value not in fields.get(name, {})]
    if unknown:
        warnings.append(QueryWarning.listing(WarningCode.UNKNOWN_PROFILE_VALUE, "profile", unknown))
    return snapshot.assembler.encode_profile(query.profile)
