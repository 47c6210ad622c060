from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serendipity.channel.errors import InvalidQuery
from serendipity.channel.recall.query import SOURCES, RecallQuery, SourceBounds, parse_query, source_name, warning_of
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import NOW


def request(**fields: object) -> pb.RecallRequest:
    return pb.RecallRequest(**{"user_id": "u", "count": 10, **fields})  # type: ignore[arg-type]


def click(item_id: str, time: int) -> pb.Event:
    return pb.Event(item_id=item_id, type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=time))


def codes(query: RecallQuery) -> list[pb.WarningCode]:
    return [warning.code for warning in query.warnings]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": "x" * 513}, "user_id"),
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
        ({"surprise": -0.01}, "surprise"),
        ({"surprise": 1.01}, "surprise"),
        ({"surprise": float("nan")}, "surprise"),
        ({"source_quotas": [pb.SourceQuota(max_count=1)]}, "source_quotas[0].source"),
        ({"source_quotas": [pb.SourceQuota(source=99, max_count=1)]}, "source_quotas[0].source"),
        ({"source_quotas": [pb.SourceQuota(source=1, min_count=5, max_count=4)]}, "source_quotas[0].min_count"),
        (
            {"source_quotas": [pb.SourceQuota(source=1, max_count=1), pb.SourceQuota(source=1, max_count=3)]},
            "source_quotas[1].source",
        ),
        (
            {"source_quotas": [pb.SourceQuota(source=1, min_count=6), pb.SourceQuota(source=2, min_count=5)]},
            "source_quotas",
        ),
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


@pytest.mark.parametrize("user_id", ["ü" * 512, " ", "a b", "用户"])
def test_odd_user_ids_are_accepted(user_id: str) -> None:
    assert parse_query(request(user_id=user_id), NOW).user_id == user_id


def test_an_unset_novelty_policy_is_strict() -> None:
    assert parse_query(request(), NOW).novelty_policy == pb.NOVELTY_POLICY_STRICT
    assert parse_query(request(novelty_policy=pb.NOVELTY_POLICY_OFF), NOW).novelty_policy == pb.NOVELTY_POLICY_OFF


def test_a_plain_request_has_no_warnings() -> None:
    query = parse_query(request(recent_events=[click("a", NOW - 5)], exclude_item_ids=["a", "b"]), NOW)
    assert query.warnings == ()
    assert query.recent_events[0].time == NOW - 5


def test_events_come_newest_first_those_without_a_time_by_their_place() -> None:
    untimed = [pb.Event(item_id=f"now-{i}", type=pb.EVENT_TYPE_CLICK) for i in range(2)]
    query = parse_query(request(recent_events=[*untimed, click("b", NOW - 1), click("a", NOW - 2)]), NOW)
    assert [event.item_id for event in query.recent_events] == ["now-1", "now-0", "b", "a"]


def test_times_that_cannot_be_are_taken_as_now_in_one_warning() -> None:
    events = [click("a", NOW - 1), *(click(f"i{time}", time) for time in (0, -1, NOW * 1_000))]
    query = parse_query(request(recent_events=events), NOW)
    assert [event.time for event in query.recent_events] == [NOW, NOW, NOW, NOW - 1]
    (warning,) = query.warnings
    assert (warning.code, warning.field, warning.count) == (pb.WARNING_CODE_TIME_CORRECTED, "recent_events", 3)
    assert warning.message.startswith("recent_events[1].time: found 0 s 0 ns, expected Unix seconds from 631152000")
    assert warning.message.endswith("; and 2 more")


def test_events_of_the_future_and_without_a_time_are_taken_as_now() -> None:
    query = parse_query(
        request(recent_events=[click("a", NOW + 60), pb.Event(item_id="b", type=pb.EVENT_TYPE_CLICK)]), NOW
    )
    assert [event.time for event in query.recent_events] == [NOW, NOW]
    assert codes(query) == [pb.WARNING_CODE_CLOCK_SKEW]


@pytest.mark.parametrize(
    "event",
    [
        pb.Event(),
        pb.Event(item_id="a"),
        pb.Event(type=pb.EVENT_TYPE_CLICK),
        pb.Event(type=pb.EVENT_TYPE_CLICK, item_id="a\tb"),
        pb.Event(type=pb.EVENT_TYPE_CLICK, item_id="x" * 513),
        pb.Event(type=pb.EVENT_TYPE_SEARCH, item_id="a"),
        pb.Event(type=99, item_id="a"),  # type: ignore[arg-type]
    ],
)
def test_unusable_events_are_ignored_with_a_warning(event: pb.Event) -> None:
    query = parse_query(request(recent_events=[event, click("a", NOW)]), NOW)
    assert len(query.recent_events) == 1
    assert codes(query) == [pb.WARNING_CODE_EVENT_IGNORED]


def test_repeated_entries_are_merged_with_a_warning_each() -> None:
    query = parse_query(
        request(
            recent_events=[click("a", NOW), click("a", NOW)],
            exclude_item_ids=["x", "y", "x"],
            allow_categories=["c", "c"],
        ),
        NOW,
    )
    assert len(query.recent_events) == 1
    assert query.exclude_item_ids == ("x", "y")
    assert query.allow_categories == ("c",)
    assert codes(query) == [pb.WARNING_CODE_DUPLICATES_MERGED] * 3
    assert [w.field for w in query.warnings] == ["recent_events", "exclude_item_ids", "allow_categories"]


@pytest.mark.parametrize(
    ("least", "most", "bounds"), [(0, 0, (0, 0)), (5, 0, (5, 10)), (0, 3, (0, 3)), (3, 3, (3, 3)), (10, 50, (10, 50))]
)
def test_a_maximum_of_zero_is_no_bound_beside_a_minimum_and_nothing_without_one(
    least: int, most: int, bounds: tuple[int, int]
) -> None:
    quota = pb.SourceQuota(source=pb.SOURCE_INTEREST, min_count=least, max_count=most)
    assert parse_query(request(source_quotas=[quota]), NOW).source_bounds == {pb.SOURCE_INTEREST: SourceBounds(*bounds)}


def test_a_warning_names_ten_entries_and_counts_them_all() -> None:
    warned = warning_of(pb.WARNING_CODE_UNKNOWN_CATEGORY, "deny_categories", [f"c{i}" for i in range(12)])
    assert warned == pb.Warning(
        code=pb.WARNING_CODE_UNKNOWN_CATEGORY,
        field="deny_categories",
        message="c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more",
        count=12,
    )


def test_sources_are_named_as_in_metrics_and_features() -> None:
    assert [source_name(source) for source in SOURCES] == ["interest", "collaborative", "group", "graph"]
    # Every source there is, so that none is unbounded by mistake.
    assert {pb.SOURCE_UNSPECIFIED, *SOURCES} == set(pb.Source.values())


@pytest.mark.parametrize("surprise", [0.0, 0.5, 1.0])
def test_surprise_is_what_the_request_says_and_nothing_where_it_says_nothing(surprise: float) -> None:
    assert parse_query(request(surprise=surprise), NOW).surprise == surprise
    assert parse_query(request(), NOW).surprise is None
