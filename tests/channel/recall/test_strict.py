"""The invariant: under STRICT no returned category is among the user's latest 200 clicks, wherever these came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendipity.channel.local import LocalChannel
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.grouped_world import GroupedWorld, novel_list
from tests.fixtures.small_world import NOW, NUM_ITEMS, SmallWorld

Click = tuple[int, int]
"""Item row, NUM_ITEMS for one outside the catalogue; Unix seconds."""


class Feedback(UserState):
    """Holds the feedback of one user, and for every key that is asked for a list of all categories."""

    def __init__(self) -> None:
        super().__init__()
        self.clicks: Sequence[Click] = ()
        self.record: records_pb2.NovelCategoriesRecord | None = None

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        return self.record

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        newest_first = sorted(self.clicks, key=lambda click: -click[1])[:200]
        return records_pb2.UserFeedbackRecord(
            clicks=[
                pb.FeedbackEvent(item_id=item_id(row), type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=time))
                for row, time in newest_first
            ]
        )


@pytest.fixture(scope="module")
def feedback() -> Feedback:
    return Feedback()


@pytest.fixture(scope="module")
def channel(small_world: SmallWorld, grouped_world: GroupedWorld, feedback: Feedback) -> Iterator[LocalChannel]:
    """All three sources find something in the snapshot with groups."""
    tower = LocalTower(small_world.tower_path)
    with LocalChannel(grouped_world.snapshot_dir, tower, feedback, clock=lambda: NOW) as opened:
        yield opened


def item_id(row: int) -> str:
    return f"item-{row:03d}" if row < NUM_ITEMS else "not-in-the-catalogue"


def latest_categories(world: SmallWorld, user_id: str, sent: Sequence[Click], fed: Sequence[Click]) -> set[str]:
    """Say it again without the product's code: categories of the latest 200 distinct clicks of all three."""
    stored: list[Click] = []
    if user_id in world.contents.users:
        record = world.contents.users[user_id]
        stored = list(zip((item - 1 for item in record.click_items), record.click_times, strict=True))
    sent = sorted(dict.fromkeys(sent), key=lambda click: -click[1])[:200]
    fed = sorted(fed, key=lambda click: -click[1])[:200]
    seen: set[Click] = set()
    window: list[int] = []
    for row, time in sorted([*sent, *fed, *stored], key=lambda click: -click[1]):
        if row < NUM_ITEMS and (row, time) in seen:
            continue
        seen.add((row, time))
        window.append(row)
    catalogue = world.contents.catalogue
    numbers = {int(catalogue.item_categories[row]) for row in window[:200] if row < NUM_ITEMS}
    return {catalogue.categories[number - 1] for number in numbers if number}


clicks = st.lists(
    st.tuples(st.integers(0, NUM_ITEMS), st.integers(NOW - 130 * 86_400, NOW)), max_size=230, unique_by=lambda c: c[1]
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user=st.integers(0, 62),
    sent=clicks,
    fed=clicks,
    # Histories that leave many categories, and histories that leave hardly any.
    rows=st.sampled_from([NUM_ITEMS, 60, 130]),
    count=st.sampled_from([1, 5, 20, 1_000]),
    allow=st.sets(st.integers(0, 11), max_size=6),
    deny=st.sets(st.integers(0, 11), max_size=4),
    # What near-line may hold for any key: nothing, or what the user clicked as well.
    listed=st.none() | st.permutations(range(1, 13)),
)
def test_strict_holds_over_random_histories(
    small_world: SmallWorld,
    channel: LocalChannel,
    feedback: Feedback,
    user: int,
    sent: list[Click],
    fed: list[Click],
    rows: int,
    count: int,
    allow: set[int],
    deny: set[int],
    listed: list[int] | None,
) -> None:
    user_id = f"user-{user:02d}"
    names = small_world.contents.catalogue.categories
    sent = [(row % rows if row < NUM_ITEMS else row, time) for row, time in sent]
    feedback.clicks, feedback.record = fed, None
    if listed is not None:
        feedback.record = novel_list(small_world, 1, (), generated_at=NOW)
        feedback.record.categories[:] = listed
    response = channel.recall(
        pb.RecallRequest(
            user_id=user_id,
            count=count,
            recent_events=[
                pb.Event(item_id=item_id(row), type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=time))
                for row, time in sent
            ],
            allow_categories=[names[c] for c in allow],
            deny_categories=[names[c] for c in deny],
        )
    )
    forbidden = latest_categories(small_world, user_id, sent, fed) | {names[c] for c in deny}
    returned = {response.categories[i] for i in response.category_indexes}
    assert not returned & forbidden
    assert not allow or returned <= {names[c] for c in allow}
    assert len(set(response.item_ids)) == len(response.item_ids) <= count
    # And it holds for the catalogue's word on each item, not only for the answer's own.
    catalogue = small_world.contents.catalogue
    for found in response.item_ids:
        row = int(found.removeprefix("item-"))
        assert catalogue.item_categories[row]
        assert catalogue.available[row]
        assert names[catalogue.item_categories[row] - 1] not in forbidden


def test_strict_leaves_something_for_every_user(
    small_world: SmallWorld, channel: LocalChannel, feedback: Feedback
) -> None:
    feedback.clicks = ()
    for user_id in [*small_world.user_ids, small_world.cold_user_id]:
        response = channel.recall(pb.RecallRequest(user_id=user_id, count=20))
        assert len(response.item_ids) == 20
        returned = {response.categories[i] for i in response.category_indexes}
        assert not returned & latest_categories(small_world, user_id, (), ())


def test_a_click_of_this_session_ends_its_category(
    small_world: SmallWorld, channel: LocalChannel, feedback: Feedback
) -> None:
    feedback.clicks = ()
    user_id = small_world.user_ids[3]
    before = channel.recall(pb.RecallRequest(user_id=user_id, count=10))
    category = before.categories[before.category_indexes[0]]
    event = pb.Event(item_id=before.item_ids[0], type=pb.EVENT_TYPE_CLICK)
    after = channel.recall(pb.RecallRequest(user_id=user_id, count=10, recent_events=[event]))
    assert category not in after.categories
    # The same click, later, as acknowledged feedback.
    feedback.clicks = [(int(before.item_ids[0].removeprefix("item-")), NOW)]
    later = channel.recall(pb.RecallRequest(user_id=user_id, count=10))
    assert category not in later.categories
    assert list(later.item_ids) == list(after.item_ids)


def test_categories_that_leave_the_window_are_novel_again(
    small_world: SmallWorld, channel: LocalChannel, feedback: Feedback
) -> None:
    feedback.clicks = ()
    user_id = small_world.user_ids[1]
    old = latest_categories(small_world, user_id, (), ())
    newer = [(row % 30, NOW - row) for row in range(200)]
    events = [
        pb.Event(item_id=item_id(row), type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=time)) for row, time in newer
    ]
    response = channel.recall(pb.RecallRequest(user_id=user_id, count=400, recent_events=events))
    assert old & set(response.categories)
    assert "food-0" not in response.categories
