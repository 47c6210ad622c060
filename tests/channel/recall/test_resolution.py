from __future__ import annotations

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from serendipity.channel.recall.query import parse_query
from serendipity.channel.recall.resolution import resolve
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import NOW


def request(**fields: object) -> pb.RecallRequest:
    return pb.RecallRequest(**{"user_id": "u", "count": 10, **fields})  # type: ignore[arg-type]


def click(item_id: str, time: int) -> pb.Event:
    return pb.Event(item_id=item_id, type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=time))


def test_a_warning_lists_ten_entries_and_counts_them_all(snapshot: Snapshot) -> None:
    query = parse_query(request(deny_categories=[f"c{i}" for i in range(12)]), NOW)
    (warning,) = resolve(query, snapshot).warnings
    assert warning.code == pb.WARNING_CODE_UNKNOWN_CATEGORY
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
        (pb.WARNING_CODE_UNKNOWN_ITEM, "recent_events"),
        (pb.WARNING_CODE_UNKNOWN_ITEM, "exclude_item_ids"),
        (pb.WARNING_CODE_UNKNOWN_CATEGORY, "deny_categories"),
        (pb.WARNING_CODE_UNKNOWN_PROFILE_VALUE, "profile"),
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


def test_categories_are_known_by_every_spelling_of_their_name(snapshot: Snapshot) -> None:
    query = parse_query(request(allow_categories=[" FOOD 0", "food/1", "food"]), NOW)
    resolved = resolve(query, snapshot)
    assert resolved.categories.nonzero()[0].tolist() == [snapshot.category_numbers[f"food-{n}"] for n in (0, 1)]
    assert [warning.message for warning in resolved.warnings] == ["food"]


def test_only_events_that_count_as_clicks_are_clicks(snapshot: Snapshot) -> None:
    assert snapshot.click_types == {pb.EVENT_TYPE_CLICK}
    events = [
        pb.Event(item_id="item-000", type=pb.EVENT_TYPE_EXPOSURE),
        pb.Event(item_id="item-001", type=pb.EVENT_TYPE_CLICK),
        pb.Event(query="Green-Tea", type=pb.EVENT_TYPE_SEARCH),
        pb.Event(item_id="item-002", type=pb.EVENT_TYPE_FAVOURITE, time=Timestamp(seconds=NOW - 7)),
    ]
    resolved = resolve(parse_query(request(recent_events=events), NOW), snapshot)
    assert resolved.clicks.items.tolist() == [2]
    assert resolved.exposures.rows.tolist() == [0]
    assert (resolved.favourites.rows.tolist(), resolved.favourites.ages.tolist()) == ([2], [7])
    assert resolved.searches == (("Green-Tea", 0),)
    assert resolved.warnings == ()


def test_events_that_change_nothing_are_named(snapshot: Snapshot) -> None:
    events = [pb.Event(item_id="item-000", type=type_) for type_ in (pb.EVENT_TYPE_VIEW, pb.EVENT_TYPE_ORDER)] * 2
    events += [pb.Event(item_id="item-001", type=pb.EVENT_TYPE_VIEW)]
    (warning,) = resolve(parse_query(request(recent_events=events[2:]), NOW), snapshot).warnings
    assert (warning.code, warning.field, warning.count) == (pb.WARNING_CODE_EVENT_IGNORED, "recent_events", 2)
    assert warning.message.startswith("found VIEW, which changes nothing in a request; expected EXPOSURE, CLICK")
    # As the snapshot says.
    ordered = replace(snapshot, click_types=frozenset([pb.EVENT_TYPE_ORDER, pb.EVENT_TYPE_VIEW]))
    resolved = resolve(parse_query(request(recent_events=events[2:]), NOW), ordered)
    assert (resolved.clicks.items.tolist(), resolved.warnings) == ([2, 1, 1], ())
    # What was ordered is not returned under SOFT and OFF, whether the snapshot takes orders for clicks or not.
    clicked = replace(snapshot, click_types=frozenset([pb.EVENT_TYPE_CLICK]))
    assert resolve(parse_query(request(recent_events=events[2:]), NOW), clicked).taken.rows.tolist() == [0]


def test_the_latest_200_clicks_count_however_many_other_events_come(snapshot: Snapshot) -> None:
    clicks = [pb.Event(item_id=f"item-{i:03d}", type=pb.EVENT_TYPE_CLICK) for i in range(250)]
    shown = [pb.Event(item_id=f"item-{i:03d}", type=pb.EVENT_TYPE_EXPOSURE) for i in range(250)]
    resolved = resolve(parse_query(request(recent_events=[*clicks, *shown]), NOW), snapshot)
    assert resolved.clicks.items.tolist() == list(range(250, 50, -1))
    assert len(resolved.exposures) == 250
    (warning,) = resolved.warnings
    assert (warning.code, warning.count) == (pb.WARNING_CODE_EVENTS_TRUNCATED, 50)


def test_clicks_keep_their_order_and_an_unknown_item_is_named_once(snapshot: Snapshot) -> None:
    events = [click("gone", NOW - 1), click("item-003", NOW - 2), click("gone", NOW - 3), click("item-399", NOW - 4)]
    resolved = resolve(parse_query(request(recent_events=events), NOW), snapshot)
    assert resolved.clicks.items.tolist() == [0, 4, 0, 400]
    # The last items have no category.
    assert resolved.clicks.categories.tolist() == [0, 1, 0, 0]
    assert resolved.clicks.times.tolist() == [NOW - 1, NOW - 2, NOW - 3, NOW - 4]
    (warning,) = resolved.warnings
    assert (warning.message, warning.count) == ("gone", 1)


def test_an_empty_request_resolves_to_everything(snapshot: Snapshot) -> None:
    resolved = resolve(parse_query(request(), NOW), snapshot)
    assert (len(resolved.clicks), len(resolved.excluded), resolved.warnings) == (0, 0, ())
    assert resolved.categories.tolist() == [False] + [True] * snapshot.num_categories
    assert not resolved.profile.any()
