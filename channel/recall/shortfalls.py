"""Why an answer, or one of its sources, is short of candidates. Nothing is looked into where there are enough."""

from __future__ import annotations

from collections.abc import Sequence

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.interests import Freshness
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import source_name
from serendipity.channel.recall.search import Found
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.row_ranges import OwnedRanges, RowRanges
from serendipity.v1 import channel_pb2

_DAY = 86_400

_UNUSABLE = {
    Freshness.MISSING: channel_pb2.SHORTFALL_CAUSE_NO_INTERESTS,
    Freshness.TOO_OLD: channel_pb2.SHORTFALL_CAUSE_INTERESTS_TOO_OLD,
    Freshness.FOREIGN: channel_pb2.SHORTFALL_CAUSE_INTERESTS_FOREIGN,
    Freshness.UNREADABLE: channel_pb2.SHORTFALL_CAUSE_UNREADABLE,
}

_WORDS = {
    channel_pb2.SHORTFALL_CAUSE_CATEGORIES_CLICKED: "found only categories that the user clicked lately",
    channel_pb2.SHORTFALL_CAUSE_CATEGORIES_NOT_LISTED: "found no category that the allow and deny lists leave",
    channel_pb2.SHORTFALL_CAUSE_CATEGORIES_DISMISSED: "found only categories that the user dismissed or clicked lately",
    channel_pb2.SHORTFALL_CAUSE_NOTHING_AVAILABLE: "found no item available in the categories that may be returned",
    channel_pb2.SHORTFALL_CAUSE_SWITCHED_OFF: "switched off, by a quota of 0 or by the service's settings",
    channel_pb2.SHORTFALL_CAUSE_NO_INTERESTS: "found no interests of the user",
    channel_pb2.SHORTFALL_CAUSE_INTERESTS_FOREIGN: "found interests of another catalogue or vocabulary",
    channel_pb2.SHORTFALL_CAUSE_INTERESTS_EXHAUSTED: "found no interest that leads to a category that may be returned",
    channel_pb2.SHORTFALL_CAUSE_NO_LIST: "found no list of novel categories for the user's group",
    channel_pb2.SHORTFALL_CAUSE_LISTS_EXHAUSTED: "found lists without a category that may be returned",
    channel_pb2.SHORTFALL_CAUSE_UNREADABLE: "could not be read, or failed; degraded_reasons says why",
    channel_pb2.SHORTFALL_CAUSE_NO_GRAPH: "found no graph in the snapshot",
    channel_pb2.SHORTFALL_CAUSE_NOT_IN_GRAPH: "found nothing in the graph that the user clicked or holds",
    channel_pb2.SHORTFALL_CAUSE_NOT_EXPLORED: "tried with other users today",
}


def tell_shortfalls(
    found: Found, user: Hydrated, settings: ChannelSettings, num_scored: int, num_chosen: int
) -> list[channel_pb2.Shortfall]:
    """Note in the status of each source that found nothing why; return why the answer is short, nothing if it is whole.

    num_scored: items to choose from; num_chosen: items of the answer.
    """
    empty = [status for status in found.statuses if not status.found]
    for status in empty:
        status.shortfall_cause = _source_cause(status, found, user, settings)
    if num_chosen == user.query.count:
        return []
    told = _told(found, user, settings, empty, num_scored - num_chosen)
    return [channel_pb2.Shortfall(cause=cause, message=message) for cause, message in told.items()]


def _told(
    found: Found,
    user: Hydrated,
    settings: ChannelSettings,
    empty: Sequence[channel_pb2.SourceStatus],
    kept_back: int,
) -> dict[channel_pb2.ShortfallCause, str]:
    """Say why an answer is short, by cause. empty: sources that found nothing; kept_back: items found, not returned."""
    if cause := _categories_cause(user):
        return {cause: _WORDS[cause]}
    told: dict[channel_pb2.ShortfallCause, str] = {}
    available = int((~user.unavailable[user.ranges.rows()]).sum())
    if not available:
        nothing = channel_pb2.SHORTFALL_CAUSE_NOTHING_AVAILABLE
        return {nothing: f"{_WORDS[nothing]}, of {len(user.ranges)}"}
    if available < user.query.count:
        told[channel_pb2.SHORTFALL_CAUSE_FEW_ITEMS] = (
            f"found {available} items available in the categories that may be returned, expected {user.query.count}"
        )
    if removed := ", ".join(f"{each.filter} {each.removed}" for each in found.filter_counts if each.removed):
        told[channel_pb2.SHORTFALL_CAUSE_FILTERED] = f"filters removed: {removed}"
    if kept_back:
        told[channel_pb2.SHORTFALL_CAUSE_QUOTAS] = f"found {kept_back} items more, of sources at their max_count"
    # The collaborative source finds whatever may be returned: only without it, or beyond its quota, others are missed.
    if kept_back or channel_pb2.SOURCE_COLLABORATIVE not in found.finds:
        for status in empty:
            if (cause := status.shortfall_cause) not in told:
                names = ", ".join(source_name(other.source) for other in empty if other.shortfall_cause == cause)
                told[cause] = f"{names}: {_words(cause, user, settings)}"
    # Of items whose scores are not finite, only these are lost.
    return told or {channel_pb2.SHORTFALL_CAUSE_UNREADABLE: _WORDS[channel_pb2.SHORTFALL_CAUSE_UNREADABLE]}


def _source_cause(
    status: channel_pb2.SourceStatus, found: Found, user: Hydrated, settings: ChannelSettings
) -> channel_pb2.ShortfallCause:
    """Tell why a source found nothing."""
    interests, lists = user.interests, user.novel_categories
    is_interest, is_group, is_graph = (
        status.source == source
        for source in (channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_GROUP, channel_pb2.SOURCE_GRAPH)
    )
    most = settings.interests_used if is_interest else settings.novel_categories_used if is_group else 1
    if user.query.excludes(status.source) or not most or (is_graph and not settings.graph_source):
        return channel_pb2.SHORTFALL_CAUSE_SWITCHED_OFF
    if status.state == channel_pb2.SOURCE_STATE_UNAVAILABLE:
        return channel_pb2.SHORTFALL_CAUSE_UNREADABLE
    if is_interest and interests.freshness in _UNUSABLE:
        return _UNUSABLE[interests.freshness]
    if is_group and not lists.has_list:
        return channel_pb2.SHORTFALL_CAUSE_NO_LIST
    if is_graph and not user.folded:
        unknown = user.folded is not None
        return channel_pb2.SHORTFALL_CAUSE_NOT_IN_GRAPH if unknown else channel_pb2.SHORTFALL_CAUSE_NO_GRAPH
    if cause := _categories_cause(user):
        return cause
    if is_interest and not len(interests):
        return channel_pb2.SHORTFALL_CAUSE_INTERESTS_EXHAUSTED
    if is_group and not len(lists):
        return channel_pb2.SHORTFALL_CAUSE_LISTS_EXHAUSTED
    rows: OwnedRanges | NovelCategories | RowRanges
    rows = interests.grounded if is_interest else lists if is_group else user.ranges
    if all(user.unavailable[start:end].all() for start, end in zip(rows.starts, rows.ends, strict=True)):
        return channel_pb2.SHORTFALL_CAUSE_NOTHING_AVAILABLE
    if not status.requested:
        return channel_pb2.SHORTFALL_CAUSE_NOT_EXPLORED
    if any(each.removed for each in found.filter_counts):
        return channel_pb2.SHORTFALL_CAUSE_FILTERED
    return channel_pb2.SHORTFALL_CAUSE_UNREADABLE


def _categories_cause(user: Hydrated) -> channel_pb2.ShortfallCause:
    """Tell what leaves no category to return items of; UNSPECIFIED if there is one."""
    if user.allowed.any():
        return channel_pb2.SHORTFALL_CAUSE_UNSPECIFIED
    if not user.listed.any():
        return channel_pb2.SHORTFALL_CAUSE_CATEGORIES_NOT_LISTED
    is_strict = user.query.novelty_policy == channel_pb2.NOVELTY_POLICY_STRICT
    if is_strict and not (user.listed & ~user.clicked).any():
        return channel_pb2.SHORTFALL_CAUSE_CATEGORIES_CLICKED
    return channel_pb2.SHORTFALL_CAUSE_CATEGORIES_DISMISSED


def _words(cause: channel_pb2.ShortfallCause, user: Hydrated, settings: ChannelSettings) -> str:
    if cause == channel_pb2.SHORTFALL_CAUSE_INTERESTS_TOO_OLD:
        days = (user.query.now - user.interests.generated_at) // _DAY
        return f"found interests {days} days old by the clock, expected at most {settings.interest_hard_age_days:g}"
    return _WORDS[cause]
