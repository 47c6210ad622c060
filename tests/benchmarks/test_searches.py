"""Which sessions open with a search, and what is sent along with the request then."""

from dataclasses import replace

import numpy as np

from benchmarks.searches import judge_sessions, opening_searches, with_searches
from serendipity.offline.evaluate.channel import ChannelEvaluation, ChannelEvaluationConfig
from serendipity.offline.evaluate.control_choice import Grid
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2
from tests.fixtures.small_histories import UNTIL as LATER
from tests.fixtures.small_histories import make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld

CUT, UNTIL = 100, 200
ITEM_CATEGORIES = np.array([1, 2], np.int32)
USERS = ["after", "before", "late", "none", "opens", "same", "search"]
"""Named by what they did; all clicked item 0 before the cut, and all but "search" turned to item 1 in the period."""

CLICKS_AFTER = {"after": 120, "before": 150, "late": 150, "none": 150, "opens": 150, "same": 150, "search": None}
SEARCHES = {
    "after": [(90, "old"), (121, "too late")],
    "before": [(99, "old")],
    "late": [(200, "past the end")],
    "opens": [(50, "old"), (100, "first"), (140, "second")],
    "same": [(150, "together")],
    "search": [(110, "without a target")],
}


def histories_and_held_out() -> tuple[Histories, HeldOut]:
    # User "search" clicked item 1 before the cut, which makes it known to training and nothing new to them.
    rows, times, offsets, searches, search_times, search_offsets = [], [], [0], [], [], [0]
    for user_id in USERS:
        clicks = [(0, 10)] if user_id != "search" else [(0, 10), (1, 20)]
        after = CLICKS_AFTER[user_id]
        clicks += [] if after is None else [(1, after)]
        rows += [row for row, _ in clicks]
        times += [time for _, time in clicks]
        offsets.append(len(rows))
        searches += [query for _, query in SEARCHES.get(user_id, [])]
        search_times += [time for time, _ in SEARCHES.get(user_id, [])]
        search_offsets.append(len(searches))
    histories = Histories(
        user_ids=USERS,
        profiles=[{}] * len(USERS),
        offsets=np.array(offsets),
        items=np.array(rows) + 1,
        categories=ITEM_CATEGORIES[rows],
        times=np.array(times),
        search_offsets=np.array(search_offsets),
        searches=searches,
        search_times=np.array(search_times),
    )
    catalogue = Catalogue(
        item_ids=["i0", "i1"],
        titles=[""] * 2,
        paths=[("a",), ("b",)],
        brands=[""] * 2,
        tags=[()] * 2,
        available=np.ones(2, np.bool_),
        prices=np.full(2, np.nan, np.float32),
        categories=["a", "b"],
        item_categories=ITEM_CATEGORIES,
        category_offsets=np.array([0, 1, 2]),
        novelty_level=0,
    )
    return histories, HeldOut.between(histories, catalogue, CUT, UNTIL)


def found() -> dict[str, str]:
    histories, held_out = histories_and_held_out()
    return {USERS[user]: query for user, query in opening_searches(histories, held_out).items()}


def test_only_users_whose_period_begins_with_a_search_are_found_with_their_first_one() -> None:
    assert found() == {"opens": "first", "same": "together"}


def test_a_search_after_the_first_click_before_the_cut_or_past_the_end_opens_nothing() -> None:
    assert not {"after", "before", "late", "none"} & set(found())


def test_a_search_by_a_user_without_novel_targets_is_not_asked_about() -> None:
    _, held_out = histories_and_held_out()
    assert USERS.index("search") not in held_out.novel.users.tolist()
    assert "search" not in found()


def test_a_search_after_a_view_in_the_period_opens_nothing() -> None:
    histories, held_out = histories_and_held_out()
    user = USERS.index("same")
    viewed = replace(
        histories,
        signal_offsets=np.where(np.arange(len(USERS) + 1) > user, 1, 0),
        signal_items=np.array([1]),
        signal_times=np.array([130]),
    )
    assert opening_searches(viewed, held_out) == {USERS.index("opens"): "first"}


def test_a_search_goes_along_as_an_event_of_the_session_and_the_rest_of_the_request_stays() -> None:
    histories, _ = histories_and_held_out()
    asked = []

    def recall(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        asked.append(request)
        return channel_pb2.RecallResponse(recall_id="its answer")

    with_them = with_searches(recall, histories, {USERS.index("opens"): "first", USERS.index("same"): "together"})
    for user_id in ("same", "opens"):
        request = channel_pb2.RecallRequest(user_id=user_id, count=7, exclude_item_ids=["i0"])
        assert with_them(request).recall_id == "its answer"
    for request, query in zip(asked, ("together", "first"), strict=True):
        [event] = request.recent_events
        assert (event.type, event.query) == (channel_pb2.EVENT_TYPE_SEARCH, query)
        assert (request.count, list(request.exclude_item_ids)) == (7, ["i0"])


def test_sessions_are_asked_with_the_search_and_without_and_judged_beside_the_controls(
    small_world: SmallWorld,
) -> None:
    histories = make_small_histories(small_world, explorers=12)
    user = int(HeldOut.between(histories, small_world.catalogue, NOW, LATER).novel.users[3])
    owners = np.arange(len(histories) + 1)
    searching = replace(
        histories,
        searches=["something new"],
        search_times=np.array([NOW], np.int64),
        search_offsets=(owners > user).astype(np.int64),
    )
    asked: list[str] = []

    def recall(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        asked.append(" ".join(event.query for event in request.recent_events))
        return channel_pb2.RecallResponse()

    grid = Grid(factors=(4,), alphas=(1.0,), ridges=(10.0,), exponents=(0.0,))
    config = ChannelEvaluationConfig(depths=(5, 20), grid=grid)
    evaluation = ChannelEvaluation.prepare(searching, small_world.catalogue, NOW, LATER, [0], config)
    page = judge_sessions(evaluation, recall)
    assert page is not None
    assert asked == ["", "something new"]
    assert page.startswith("1 users whose first event in the period is a search.")
    assert "**channel, with the search**" in page
    assert judge_sessions(replace(evaluation, histories=histories), recall) is None
