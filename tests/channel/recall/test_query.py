from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serendipity.channel.errors import InvalidQuery
from serendipity.channel.recall.query import (
    NoveltyPolicy,
    RecallQuery,
    Source,
    SourceBounds,
    WarningCode,
    parse_query,
    resolve,
)
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import NOW


def request(**fields: object) -> pb.RecallRequest:
    return pb.RecallRequest(**{"user_id": "u", "count": 10, **fields})  # type: ignore[arg-type]


def click(item_id: str, time: int) -> pb.Event:
    return pb.Event(item_id=item_id, type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=time))


def codes(query: RecallQuery) -> list[WarningCode]:
    return [warning.code for warning in query.warnings]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": "x" * 10_001}, "user_id"),
        ({"count": 0}, "count"),
        ({"count": 1_001}, "count"),
        ({"recent_events": [pb.Event()] * 1_001}, "recent_events"),
        ({"profile": {str(i): "" for i in range(65)}}, "profile"),
        ({"exclude_item_ids": ["x"] * 10_001}, "exclude_item_ids"),
        ({"allow_categories": ["x"] * 1_001}, "allow_categories"),
        ({"deny_categories": ["x"] * 1_001}, "deny_categories"),
        ({"source_quotas": [pb.SourceQuota(source=pb.SOURCE_INTEREST)] * 17}, "source_quotas"),
        ({"experiment_tag": "x" * 129}, "experiment_tag"),
        ({"novelty_policy": 17}, "novelty_policy"),
        ({"source_quotas": [pb.SourceQuota(max_count=1)]}, "source_quotas[0].source"),
        ({"source_quotas": [pb.SourceQuota(source=99, max_count=1)]}, "source_quotas[0].source"),
        ({"source_quotas": [pb.SourceQuota(source=1, min_count=5)]}, "source_quotas[0].min_count"),
    ],
)
def test_what_cannot_be_repaired_is_refused_by_field(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_query(request(**fields), NOW)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert field in str(caught.value)


def test_every_violation_is_named_at_once() -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_query(pb.RecallRequest(), NOW)
    assert [violation.field for violation in caught.value.violations] == ["user_id", "count"]


@pytest.mark.parametrize("user_id", ["ü" * 10_000, " ", "a b", "用户"])
def test_odd_user_ids_are_accepted(user_id: str) -> None:
    assert parse_query(request(user_id=user_id), NOW).user_id == user_id


def test_an_unset_novelty_policy_is_strict() -> None:
    assert parse_query(request(), NOW).novelty_policy is NoveltyPolicy.STRICT
    assert parse_query(request(novelty_policy=pb.NOVELTY_POLICY_OFF), NOW).novelty_policy is NoveltyPolicy.OFF


def test_a_plain_request_has_no_warnings() -> None:
    query = parse_query(request(recent_events=[click("a", NOW - 5)], exclude_item_ids=["a", "b"]), NOW)
    assert query.warnings == ()
    assert query.recent_events[0].time == NOW - 5


def test_events_come_newest_first_and_only_the_latest_200() -> None:
    query = parse_query(request(recent_events=[click(f"i{t}", NOW - t) for t in range(300, 0, -1)]), NOW)
    assert [event.time for event in query.recent_events] == [NOW - t for t in range(1, 201)]
    assert codes(query) == [WarningCode.EVENTS_TRUNCATED]
    assert query.warnings[0].count == 100


def test_events_of_the_future_and_without_a_time_are_taken_as_now() -> None:
    query = parse_query(
        request(recent_events=[click("a", NOW + 60), pb.Event(item_id="b", type=pb.EVENT_TYPE_CLICK)]), NOW
    )
    assert [event.time for event in query.recent_events] == [NOW, NOW]
    assert codes(query) == [WarningCode.CLOCK_SKEW]


@pytest.mark.parametrize(
    "event",
    [
        pb.Event(),
        pb.Event(item_id="a"),
        pb.Event(type=pb.EVENT_TYPE_CLICK),
        pb.Event(type=pb.EVENT_TYPE_SEARCH, item_id="a"),
        pb.Event(type=99, item_id="a"),  # type: ignore[arg-type]
    ],
)
def test_unusable_events_are_ignored_with_a_warning(event: pb.Event) -> None:
    query = parse_query(request(recent_events=[event, click("a", NOW)]), NOW)
    assert len(query.recent_events) == 1
    assert codes(query) == [WarningCode.EVENT_IGNORED]


def test_repeated_entries_are_merged_with_a_warning_each() -> None:
    query = parse_query(
        request(
            recent_events=[click("a", NOW), click("a", NOW)],
            exclude_item_ids=["x", "y", "x"],
            allow_categories=["c", "c"],
            source_quotas=[
                pb.SourceQuota(source=pb.SOURCE_INTEREST, max_count=1),
                pb.SourceQuota(source=pb.SOURCE_INTEREST, max_count=3),
            ],
        ),
        NOW,
    )
    assert len(query.recent_events) == 1
    assert query.exclude_item_ids == ("x", "y")
    assert query.allow_categories == ("c",)
    assert query.source_bounds == {Source.INTEREST: SourceBounds(0, 3)}
    assert codes(query) == [WarningCode.DUPLICATES_MERGED] * 4
    assert [w.field for w in query.warnings] == [
        "recent_events", "exclude_item_ids", "allow_categories", "source_quotas",
    ]  # fmt: skip


def test_a_warning_lists_ten_entries_and_counts_them_all(snapshot: Snapshot) -> None:
    query = parse_query(request(deny_categories=[f"c{i}" for i in range(12)]), NOW)
    (warning,) = resolve(query, snapshot).warnings
    assert warning.code is WarningCode.UNKNOWN_CATEGORY
    assert warning.count == 12
    assert warning.message.endswith("c9 and 2 more")


def test_a_warning_shows_only_the_start_of_a_long_entry(snapshot: Snapshot) -> None:
    (warning,) = resolve(parse_query(request(exclude_item_ids=["🦊" * 10_000, "b"]), NOW), snapshot).warnings
    assert warning.message == f"{'🦊' * 100}…, b"


def test_unknown_names_are_ignored_with_warnings(snapshot: Snapshot) -> None:
    query = parse_query(
        request(
            recent_events=[click("no-such-item", NOW)],
            exclude_item_ids=["item-003", "gone"],
            deny_categories=["food-1", "no-such-category"],
            profile={"age": "1", "area": "moon", "shoe": "44"},
        ),
        NOW,
    )
    resolved = resolve(query, snapshot)
    assert resolved.excluded.tolist() == [3]
    assert [(w.code, w.field) for w in resolved.warnings] == [
        (WarningCode.UNKNOWN_ITEM, "recent_events"),
        (WarningCode.UNKNOWN_ITEM, "exclude_item_ids"),
        (WarningCode.UNKNOWN_CATEGORY, "deny_categories"),
        (WarningCode.UNKNOWN_PROFILE_VALUE, "profile"),
    ]
    assert resolved.warnings[3].message == "area=moon, shoe=44"
    assert resolved.profile.tolist() == [2, 0]
    assert not resolved.categories[snapshot.category_numbers["food-1"]]
    assert resolved.categories.sum() == snapshot.num_categories - 1
    # The click stands, without a category.
    assert resolved.clicks.items.tolist() == [0]
    assert resolved.clicks.categories.tolist() == [0]


def test_an_allow_list_of_unknown_categories_allows_nothing(snapshot: Snapshot) -> None:
    resolved = resolve(parse_query(request(allow_categories=["discontinued"]), NOW), snapshot)
    assert not resolved.categories.any()


def test_deny_beats_allow(snapshot: Snapshot) -> None:
    query = parse_query(request(allow_categories=["food-0", "food-1"], deny_categories=["food-1"]), NOW)
    assert resolve(query, snapshot).categories.nonzero()[0].tolist() == [snapshot.category_numbers["food-0"]]


def test_only_events_that_count_as_clicks_are_clicks(snapshot: Snapshot) -> None:
    assert snapshot.click_types == {pb.EVENT_TYPE_CLICK}
    events = [
        pb.Event(item_id="item-000", type=pb.EVENT_TYPE_EXPOSURE),
        pb.Event(item_id="item-001", type=pb.EVENT_TYPE_CLICK),
        pb.Event(query="tea", type=pb.EVENT_TYPE_SEARCH),
    ]
    assert resolve(parse_query(request(recent_events=events), NOW), snapshot).clicks.items.tolist() == [2]
