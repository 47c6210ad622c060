from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serendipity.channel.nearline.subject import WantedList
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.interests import Freshness
from serendipity.channel.recall.query import RecallQuery, RecentEvent, SourceBounds
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.row_ranges import RowRanges
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.features import INPUT_NAMES, FeatureAssembler, LongHistory
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import NOW, SmallWorld


class Feedback(UserState):
    def __init__(self, *clicks: tuple[str, int]) -> None:
        super().__init__()
        self.clicks = clicks

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        clicks = (pb.FeedbackEvent(item_id=item, time=Timestamp(seconds=time)) for item, time in self.clicks)
        return records_pb2.UserFeedbackRecord(clicks=clicks)


@pytest.fixture
def holder(snapshot: Snapshot) -> SnapshotHolder:
    """Holds the shared snapshot; never closed, since other tests use it too."""
    return SnapshotHolder(snapshot)


def read(
    holder: SnapshotHolder,
    user_id: str,
    state: UserState | None = None,
    settings: ChannelSettings | None = None,
    **fields: object,
) -> Hydrated:
    query = RecallQuery(user_id=user_id, count=10, now=NOW, **fields)  # type: ignore[arg-type]
    with holder.acquire() as lease:
        return hydrate(lease, query, state or UserState(), settings or ChannelSettings())


def click(item_id: str, time: int) -> RecentEvent:
    return RecentEvent(item_id, pb.EVENT_TYPE_CLICK, time, "")


def test_the_tower_is_fed_what_training_would_feed_it(
    small_world: SmallWorld, snapshot: Snapshot, holder: SnapshotHolder
) -> None:
    assembler = FeatureAssembler.from_spec(small_world.tower)
    for user_id in small_world.user_ids:
        record = small_world.contents.users[user_id]
        long_history = LongHistory(
            np.array(record.long_categories, np.int32),
            np.array(record.long_counts, np.int32),
            np.array(record.long_last_times, np.int64),
        )
        interests = small_world.contents.node_vectors[list(small_world.contents.interests[user_id].node_ids)]
        profile = np.array(record.profile, np.int32)
        expected = assembler.assemble(small_world.clicks(user_id), long_history, profile, interests, NOW)
        served = read(holder, user_id).inputs
        for name in INPUT_NAMES:
            np.testing.assert_array_equal(getattr(served, name), getattr(expected, name), err_msg=name)


def test_clicks_of_all_three_places_are_laid_over_one_another(
    small_world: SmallWorld, snapshot: Snapshot, holder: SnapshotHolder
) -> None:
    user_id = small_world.user_ids[1]
    stored = small_world.clicks(user_id)
    hydrated = read(
        holder,
        user_id,
        Feedback(("item-100", NOW + 10), ("item-101", NOW - 3)),
        recent_events=(click("item-102", NOW), click("item-100", NOW)),
    )
    # What was stored by a clock that was ahead is no later than what the request tells.
    assert hydrated.clicks.items[:3].tolist() == [103, 101, 102]
    assert hydrated.clicks.items[3:].tolist() == stored.items.tolist()
    clicked = {int(c) for c in snapshot.categories_of(np.array([101, 102, 103]))} | set(stored.categories.tolist())
    assert set(np.flatnonzero(hydrated.clicked).tolist()) == clicked | {0}


def test_later_clicks_reach_the_long_history_once(small_world: SmallWorld, holder: SnapshotHolder) -> None:
    user_id = small_world.user_ids[1]
    category = int(small_world.contents.catalogue.item_categories[100])
    before, after = (
        read(holder, user_id, Feedback(*clicks)).inputs for clicks in ((), (("item-100", NOW), ("item-101", NOW + 1)))
    )
    assert counts_of(after)[category] == counts_of(before).get(category, 0) + 2
    # An event the snapshot already holds is not counted again.
    known = small_world.clicks(user_id)
    again = Feedback((small_world.item_ids[known.items[0] - 1], int(known.times[0])))
    assert counts_of(read(holder, user_id, again).inputs) == counts_of(before)


def counts_of(inputs: object) -> dict[int, int]:
    return dict(zip(inputs.long_categories[0].tolist(), inputs.long_counts[0].tolist(), strict=True))  # type: ignore[attr-defined]


def test_a_profile_of_the_request_is_laid_over_the_stored_one(small_world: SmallWorld, holder: SnapshotHolder) -> None:
    user_id = small_world.user_ids[1]
    assert read(holder, user_id).inputs.profile.tolist() == [[2, 1]]
    assert read(holder, user_id, profile={"age": "2"}).inputs.profile.tolist() == [[3, 1]]
    assert read(holder, user_id, profile={"age": "no such age"}).inputs.profile.tolist() == [[2, 1]]
    assert read(holder, "nobody", profile={"area": "south"}).inputs.profile.tolist() == [[0, 2]]


def test_an_interest_whose_category_was_just_clicked_is_over(
    small_world: SmallWorld, snapshot: Snapshot, holder: SnapshotHolder
) -> None:
    user_id = next(user for user in small_world.user_ids if len(small_world.planted[user]) > 1)
    first = small_world.planted[user_id][0]
    item = small_world.item_ids[small_world.contents.catalogue.category_offsets[first - 1]]
    before = read(holder, user_id).interests
    after = read(holder, user_id, recent_events=(click(item, NOW),)).interests
    assert before.names[0] == snapshot.category_names[first - 1]
    assert after.names == before.names[1:]
    assert after.positions.tolist() == before.positions.tolist()[1:]
    # Without novelty nothing is over.
    off = read(holder, user_id, recent_events=(click(item, NOW),), novelty_policy=pb.NOVELTY_POLICY_OFF)
    assert off.interests.names == before.names


def test_grounding_never_leaves_the_allowed_rows(small_world: SmallWorld, holder: SnapshotHolder) -> None:
    for user_id in small_world.user_ids:
        hydrated = read(holder, user_id)
        allowed = set(hydrated.ranges.rows().tolist())
        grounded = hydrated.interests.grounded
        assert set(np.unique(grounded.owners).tolist()) == set(range(len(hydrated.interests)))
        assert set(RowRanges.union(grounded.starts, grounded.ends).rows().tolist()) <= allowed


def test_interests_used_are_bounded(small_world: SmallWorld, holder: SnapshotHolder) -> None:
    user_id = max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))
    assert len(read(holder, user_id).interests) == len(small_world.planted[user_id])
    assert len(read(holder, user_id, settings=ChannelSettings(interests_used=1)).interests) == 1
    nothing = read(holder, user_id, settings=ChannelSettings(interests_used=0)).interests
    assert len(nothing) == 0
    assert nothing.freshness is Freshness.FRESH


def test_exposures_before_the_horizon_do_not_count(snapshot: Snapshot, holder: SnapshotHolder) -> None:
    class Exposed(UserState):
        def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
            times = (NOW - 10, NOW - 3_600, NOW - 7_200)
            return records_pb2.UserFeedbackRecord(
                exposures=[
                    pb.FeedbackEvent(item_id=f"item-{i:03d}", time=Timestamp(seconds=time))
                    for i, time in enumerate(times)
                ]
            )

    for hours, rows in ((24, [0, 1, 2]), (1, [0, 1]), (0, [])):
        served = read(holder, "u", Exposed(), ChannelSettings(served_horizon_hours=hours)).served
        assert served.tolist() == rows


def test_a_request_without_the_group_source_reads_no_lists_and_asks_for_none(
    grouped_snapshot: Snapshot, small_world: SmallWorld
) -> None:
    class Lists(UserState):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
            self.calls.append("list read")
            return None

        def want_novel_categories(self, want: WantedList) -> None:
            self.calls.append("list wanted")

    # Users' lists in the snapshot are every other one's.
    holder, user_id = SnapshotHolder(grouped_snapshot), small_world.user_ids[1]
    asking, state = Lists(), Lists()
    asked = read(holder, user_id, asking, source_bounds={pb.SOURCE_GROUP: SourceBounds(0, 1)}).novel_categories
    assert {"list read", "list wanted"} <= set(asking.calls)
    assert asked.key != pb.NOVEL_CATEGORY_KEY_UNSPECIFIED
    left = read(holder, user_id, state, source_bounds={pb.SOURCE_GROUP: SourceBounds(0, 0)}).novel_categories
    assert state.calls == []
    # Metrics count no key that is unspecified.
    assert (len(left), left.key) == (0, pb.NOVEL_CATEGORY_KEY_UNSPECIFIED)
