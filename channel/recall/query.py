"""One request, validated and normalised once at the edge.

`parse_query` reads a RecallRequest without looking at any snapshot; `serendipity.channel.recall.resolution` turns its
names into the numbers of the snapshot that answers it. Nothing behind this file sees the request message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from serendipity.channel.errors import FieldViolation, InvalidQuery
from serendipity.event_times import EventTimes
from serendipity.ids import id_fault
from serendipity.interests.text import clean_text
from serendipity.v1 import channel_pb2

MAX_COUNT = 1_000
_MOST_ENTRIES = {
    "recent_events": 1_000,
    "profile": 64,
    "exclude_item_ids": 10_000,
    "allow_categories": 1_000,
    "deny_categories": 1_000,
    "source_quotas": 16,
}
_MOST_CHARACTERS = {"experiment_tag": 128}
"""Hard caps, as channel.proto states them."""

_LISTED = 10
"""Entries a warning names."""

_SHOWN = 100
"""Characters of an entry that a warning shows: what is wrong with a request must not outweigh the answer."""

SOURCES = (
    channel_pb2.SOURCE_INTEREST,
    channel_pb2.SOURCE_COLLABORATIVE,
    channel_pb2.SOURCE_GROUP,
    channel_pb2.SOURCE_GRAPH,
)
"""Where candidates are found, in the order that outcomes and features are listed."""

_Key = TypeVar("_Key", bound=Hashable)


def source_name(source: int) -> str:
    """Name a source as in metrics and features: interest, collaborative, group, graph."""
    return channel_pb2.Source.Name(source).removeprefix("SOURCE_").lower()


def warning(code: channel_pb2.WarningCode, field: str, message: str, count: int = 1) -> channel_pb2.Warning:
    """Tell the caller something about a request. field: in proto naming; count: entries concerned."""
    return channel_pb2.Warning(code=code, field=field, message=message, count=count)


def warning_of(code: channel_pb2.WarningCode, field: str, entries: Sequence[str]) -> channel_pb2.Warning:
    """Name the entries concerned, the first ten of them."""
    shown = [entry if len(entry) <= _SHOWN else f"{entry[:_SHOWN]}…" for entry in entries[:_LISTED]]
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return warning(code, field, ", ".join(shown) + more, len(entries))


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

    now: Unix seconds; recent_events: newest first; exclude_item_ids, allow_categories and
    deny_categories without duplicates; an empty allow list allows everything; experiment_tag, explain,
    allow_repeats and shadow are carried through; surprise: 0 to 1, None where the request sets none; warnings: what was
    normalised.
    """

    user_id: str
    count: int
    now: int
    recent_events: tuple[RecentEvent, ...] = ()
    profile: Mapping[str, str] = field(default_factory=dict)
    exclude_item_ids: tuple[str, ...] = ()
    allow_categories: tuple[str, ...] = ()
    deny_categories: tuple[str, ...] = ()
    novelty_policy: int = channel_pb2.NOVELTY_POLICY_STRICT
    source_bounds: Mapping[int, SourceBounds] = field(default_factory=dict)
    experiment_tag: str = ""
    explain: bool = False
    allow_repeats: bool = False
    shadow: bool = False
    surprise: float | None = None
    warnings: tuple[channel_pb2.Warning, ...] = ()

    def excludes(self, source: int) -> bool:
        """Tell whether no candidate may carry a source: its most is 0."""
        bounds = self.source_bounds.get(source)
        return bounds is not None and bounds.max_count == 0


def parse_query(request: channel_pb2.RecallRequest, now: int) -> RecallQuery:
    """Validate and normalise a request. now: Unix seconds.

    Raises InvalidQuery naming every field that cannot be repaired; all else is normalised with a warning.
    """
    violations = list(_violations(request))
    if violations:
        raise InvalidQuery(violations)
    warnings: list[channel_pb2.Warning] = []
    return RecallQuery(
        user_id=request.user_id,
        count=request.count,
        now=now,
        recent_events=_recent_events(request.recent_events, now, warnings),
        profile=dict(request.profile),
        exclude_item_ids=_merged(request.exclude_item_ids, "exclude_item_ids", warnings),
        allow_categories=_merged(request.allow_categories, "allow_categories", warnings),
        deny_categories=_merged(request.deny_categories, "deny_categories", warnings),
        novelty_policy=request.novelty_policy or channel_pb2.NOVELTY_POLICY_STRICT,
        source_bounds={
            quota.source: SourceBounds(quota.min_count, quota.max_count or (request.count if quota.min_count else 0))
            for quota in request.source_quotas
        },
        experiment_tag=request.experiment_tag,
        explain=request.explain,
        allow_repeats=request.allow_repeats,
        shadow=request.shadow,
        surprise=request.surprise if request.HasField("surprise") else None,
        warnings=tuple(warnings),
    )


def _violations(request: channel_pb2.RecallRequest) -> Iterable[FieldViolation]:
    if fault := id_fault(request.user_id):
        yield FieldViolation("user_id", fault)
    if not 1 <= request.count <= MAX_COUNT:
        yield FieldViolation("count", f"found {request.count}, expected 1 to {MAX_COUNT}")
    for caps, what in ((_MOST_ENTRIES, "entries"), (_MOST_CHARACTERS, "characters")):
        for name, cap in caps.items():
            if (length := len(getattr(request, name))) > cap:
                yield FieldViolation(name, f"has {length} {what}; expected at most {cap}")
    if request.novelty_policy not in channel_pb2.NoveltyPolicy.values():
        yield FieldViolation("novelty_policy", f"found {request.novelty_policy}, expected a NoveltyPolicy")
    if not 0 <= request.surprise <= 1:
        yield FieldViolation("surprise", f"found {request.surprise!r}, expected 0 to 1")
    if len(request.source_quotas) <= _MOST_ENTRIES["source_quotas"]:
        yield from _quota_violations(request.source_quotas, request.count)


def _quota_violations(quotas: Sequence[channel_pb2.SourceQuota], count: int) -> Iterable[FieldViolation]:
    seen: set[int] = set()
    for i, quota in enumerate(quotas):
        if quota.source not in SOURCES:
            known = ", ".join(map(source_name, SOURCES)).upper()
            yield FieldViolation(f"source_quotas[{i}].source", f"found {quota.source}, expected one of {known}")
        elif quota.source in seen:
            again = source_name(quota.source).upper()
            yield FieldViolation(f"source_quotas[{i}].source", f"found {again} again, expected each source once")
        seen.add(quota.source)
        if 0 < quota.max_count < quota.min_count:
            yield FieldViolation(
                f"source_quotas[{i}].min_count",
                f"found {quota.min_count}, expected at most max_count, which is {quota.max_count}",
            )
    if (least := sum(quota.min_count for quota in quotas)) > count:
        yield FieldViolation("source_quotas", f"found min_counts of {least} together, expected at most count: {count}")


def _recent_events(
    sent: Iterable[channel_pb2.Event], now: int, warnings: list[channel_pb2.Warning]
) -> tuple[RecentEvent, ...]:
    events: list[RecentEvent] = []
    ignored = 0
    times = EventTimes("recent_events", now)
    for index, event in enumerate(sent):
        known_type = event.type != 0 and event.type in channel_pb2.EventType.values()
        is_search = event.type == channel_pb2.EVENT_TYPE_SEARCH
        if not known_type or (not clean_text(event.query) if is_search else id_fault(event.item_id)):
            ignored += 1
            continue
        time = event.time.seconds if times.stands(index, event) else now
        events.append(RecentEvent(event.item_id, event.type, time, event.query))
    # The newest first: later in the list is newer where times are the same.
    distinct = list(dict.fromkeys(reversed(events)))
    for count, code, message in (
        (
            ignored,
            channel_pb2.WARNING_CODE_EVENT_IGNORED,
            "events without a known type, or without the id of an item or a query",
        ),
        (len(events) - len(distinct), channel_pb2.WARNING_CODE_DUPLICATES_MERGED, "events sent more than once"),
    ):
        if count > 0:
            warnings.append(warning(code, "recent_events", message, count))
    warnings += times.warnings()
    distinct.sort(key=lambda event: -event.time)
    return tuple(distinct)


def _merged(sent: Iterable[_Key], name: str, warnings: list[channel_pb2.Warning]) -> tuple[_Key, ...]:
    entries = tuple(sent)
    distinct = tuple(dict.fromkeys(entries))
    if len(distinct) < len(entries):
        repeated = [str(entry) for entry, count in Counter(entries).items() if count > 1]
        warnings.append(warning_of(channel_pb2.WARNING_CODE_DUPLICATES_MERGED, name, repeated))
    return distinct
