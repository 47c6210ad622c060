"""Which sessions open with a search, and what is sent along with the request then."""

from dataclasses import replace

import numpy as np

from benchmarks.searches import (
    beyond,
    judge_sessions,
    opening_searches,
    rank_by_controls,
    rank_sessions,
    simulated_searches,
    with_searches,
)
from benchmarks.text_only import TextOnly
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.interests.taxonomy import Taxonomy
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


CATALOGUE = Catalogue(
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
    return histories, HeldOut.between(histories, CATALOGUE, CUT, UNTIL)


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


def test_a_simulated_search_is_for_the_kind_of_the_first_novel_target_without_one_of_its_words() -> None:
    histories, held_out = histories_and_held_out()
    named = replace(CATALOGUE, paths=[("a", "Coffee"), ("b", "Green tea/loose")])
    searches = simulated_searches(histories, held_out, named, np.random.default_rng(0))
    assert {USERS[user] for user in searches} == {"after", "before", "late", "none", "opens", "same"}
    assert {frozenset(search.split()) for search in searches.values()} <= {
        frozenset({"green", "tea", "loose"} - {left_out}) for left_out in ("green", "tea", "loose")
    }
    assert len(set(searches.values())) > 1


def test_beyond_a_search_are_targets_of_categories_that_it_does_not_name(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    held_out = HeldOut.between(histories, small_world.catalogue, NOW, LATER)
    taxonomy = Taxonomy.from_catalogue(small_world.catalogue)
    user = int(held_out.novel.users[0])
    of_user = held_out.novel.of_users(np.array([user]))
    named = small_world.catalogue.categories[int(held_out.item_categories[of_user.rows[0]]) - 1]
    left = beyond(held_out, taxonomy, {user: named})
    assert set(left.rows.tolist()) < set(of_user.rows.tolist())
    assert of_user.rows[0] not in left.rows
    assert beyond(held_out, taxonomy, {user: "zebra"}).rows.tolist() == of_user.rows.tolist()


def test_sessions_are_asked_without_their_search_with_it_and_with_anothers(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    held_out = HeldOut.between(histories, small_world.catalogue, NOW, LATER)
    one, other = held_out.novel.users[[1, 3]].tolist()
    asked: list[str] = []

    def recall(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        asked.append(" ".join(event.query for event in request.recent_events))
        return channel_pb2.RecallResponse()

    searches = {one: "food", other: "music"}
    lists = rank_sessions(recall, histories, small_world.catalogue, held_out, searches, depth=5)
    assert asked == ["", "", "food", "music", "music", "food"]
    taxonomy = Taxonomy.from_catalogue(small_world.catalogue)
    page = judge_sessions(lists, held_out, taxonomy, searches, np.random.default_rng(0), depths=(2, 5))
    assert "| channel, with the search | 0.0000 | 0.0000 |" in page
    nothing = "| all @5 | +0.0000 (+0.0000 to +0.0000) |"
    assert f"| channel, with another's search, minus channel, without the search {nothing}" in page


def test_names_that_a_search_shares_words_with_rank_what_lies_below_them_first(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    held_out = HeldOut.between(histories, small_world.catalogue, NOW, LATER)
    taxonomy = Taxonomy.from_catalogue(small_world.catalogue)
    ids = {node.path: node.node_id for node in taxonomy.nodes}
    nodes = np.array([ids.get(path, 0) for path in small_world.catalogue.paths])
    user = int(held_out.novel.users[0])
    row = int(held_out.novel.rows[0])
    wanted = int(held_out.item_categories[row])
    searches = {user: small_world.catalogue.categories[wanted - 1]}
    texts = TextOnly(Spelled(), np.eye(len(taxonomy), dtype=np.float32)[:, :2], nodes)  # type: ignore[arg-type]
    lists = rank_by_controls(histories, held_out, searches, texts, taxonomy, depth=5)
    assert set(held_out.item_categories[lists["names that the search shares words with"]].ravel().tolist()) == {wanted}
    assert set(lists) > {"popularity, 28 days", "text of the search", "texts of the clicks"}


class Spelled:
    """An encoder of two dimensions."""

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 2), np.float32)


def test_text_alone_ranks_by_cosine_then_by_popularity(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    held_out = HeldOut.between(histories, small_world.catalogue, NOW, LATER)
    statistics = ClickStatistics.of(histories, held_out)
    nodes = small_world.catalogue.item_categories.astype(np.int64)
    vectors = np.eye(nodes.max() + 1, dtype=np.float32)
    texts = TextOnly(Spelled(), vectors, nodes)  # type: ignore[arg-type]
    user = held_out.novel.users[:1]
    clicked = histories.clicks_before(int(user[0]), NOW).categories
    [scores] = texts.near_clicks(histories, held_out, statistics)(user)
    categories, popular = held_out.item_categories[held_out.candidates], statistics.recent_users[held_out.candidates]
    most = np.bincount(clicked[clicked > 0]).argmax()
    assert set(categories[scores >= scores[categories == most].min()].tolist()) == {most}
    inside = categories == most
    np.testing.assert_array_equal(np.argsort(scores[inside], kind="stable"), np.argsort(popular[inside], kind="stable"))
