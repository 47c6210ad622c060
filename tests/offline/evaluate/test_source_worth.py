"""What each source is worth in made-up answers, and how its places are given to popular items."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.evaluate.held_out import Targets
from serendipity.offline.evaluate.measures import Judge
from serendipity.offline.evaluate.replay import SOURCES, Replay, source_name
from serendipity.offline.evaluate.source_worth import SourceWorth, give_places, source_worths
from serendipity.v1 import channel_pb2

A, B = channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_COLLABORATIVE
"""As short as they are here, answers can be read as tables."""


def test_popular_items_take_the_given_places_in_their_order_and_the_rest_stays() -> None:
    rows = np.array([[7, 8, 9, 6]])
    given_places = np.array([[True, False, True, False]])
    assert give_places(rows, given_places, np.array([[1, 2, 3]])).tolist() == [[1, 8, 2, 6]]


def test_an_item_in_the_rest_of_the_answer_is_passed_over() -> None:
    rows = np.array([[7, 8, 9]])
    given_places = np.array([[True, False, True]])
    assert give_places(rows, given_places, np.array([[8, 2, 3]])).tolist() == [[2, 8, 3]]
    # An item that leaves its place may come back.
    assert give_places(rows, given_places, np.array([[9, 8, 7]])).tolist() == [[9, 8, 7]]


def test_places_stay_empty_where_popular_items_run_out() -> None:
    rows = np.array([[7, 8, 9], [4, 5, 6]])
    given_places = np.array([[True, True, True], [True, False, True]])
    assert give_places(rows, given_places, np.array([[3, -1], [5, -1]])).tolist() == [[3, -1, -1], [-1, 5, -1]]


def test_nothing_given_is_nothing_changed_and_the_answers_are_left_as_they_were() -> None:
    rows = np.array([[7, 8, 9]])
    assert give_places(rows, np.zeros((1, 3), np.bool_), np.array([[1, 2, 3]])).tolist() == [[7, 8, 9]]
    give_places(rows, np.ones((1, 3), np.bool_), np.array([[1, 2, 3]]))
    assert rows.tolist() == [[7, 8, 9]]


@given(st.integers(0, 2**32 - 1))
def test_given_places_never_repeat_an_item_and_never_touch_the_rest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 4)), int(rng.integers(1, 8))
    rows = np.stack([rng.permutation(12)[:k] for _ in range(n)])
    given_places = rng.random((n, k)) < 0.5
    popular = np.stack([rng.permutation(12)[: int(rng.integers(1, 2)) * 6] for _ in range(n)])
    filled = give_places(rows, given_places, popular)
    np.testing.assert_array_equal(filled[~given_places], rows[~given_places])
    for i in range(n):
        there = filled[i][filled[i] >= 0].tolist()
        assert len(there) == len(set(there))
        taken = filled[i][given_places[i]].tolist()
        ranked = [row for row in popular[i].tolist() if row not in rows[i][~given_places[i]]]
        assert taken == (ranked + [-1] * k)[: len(taken)]


@pytest.fixture
def judge() -> Judge:
    """Users 3 and 7 with the targets 0 and 1, and 2."""
    targets = Targets.from_pairs(np.array([3, 3, 7]), np.array([0, 1, 2]))
    return Judge(targets, {}, np.full((2, 1), -1))


def replay_of(rows: list[list[int]], sources: list[list[int]], found_by: list[list[set[int]]]) -> Replay:
    n, count = np.shape(rows)
    nothing = np.zeros((n, count), np.float32)
    found = np.array([[[source in one for source in SOURCES] for one in line] for line in found_by])
    return Replay(
        count=count,
        users=np.array([3, 7]),
        rows=np.array(rows),
        scores=nothing,
        relevance=nothing,
        sources=np.array(sources, np.int8),
        found_by=found,
        degraded=np.zeros(n, np.bool_),
        seconds=np.zeros(n),
        stage_seconds={},
        source_states={"interest": {"ok": 2}, "collaborative": {"ok": 1, "empty": 1}},
        degraded_reasons={},
        snapshots=(),
        features=np.zeros((n, count, 0), np.float32),
        feature_names=(),
    )


# To user 3: item 0, a target, of interest alone; 5; 1, a target, that both found. To user 7: 6, then 2, a target.
ANSWERS = replay_of(
    [[0, 5, 1, -1], [6, 2, -1, -1]],
    [[A, B, B, 0], [A, B, 0, 0]],
    [[{A}, {B}, {A, B}, set()], [{A}, {B}, set(), set()]],
)
# Item 1 stays in the answer to user 3 when interest gives its place away, and 2 in that to user 7.
POPULAR = np.array([[1, 8, 0], [2, 9, 6]])


def worths_of(answers: list[Replay], judge: Judge) -> dict[str, SourceWorth]:
    return {one.name: one for one in source_worths(answers, judge, POPULAR, np.random.default_rng(0))}


def test_a_source_is_worth_the_targets_in_the_places_it_leads(judge: Judge) -> None:
    worths = worths_of([ANSWERS], judge)
    assert list(worths) == ["interest", "collaborative"]
    interest, collaborative = worths["interest"], worths["collaborative"]
    # Interest leads one place of each answer, collaborative two and one; empty places count for nobody.
    assert (interest.places, interest.hits) == (1.0, 0.5)
    assert (collaborative.places, collaborative.hits) == (1.5, 1.0)


def test_popularity_is_given_the_same_places_while_the_rest_of_the_answer_stays(judge: Judge) -> None:
    worths = worths_of([ANSWERS], judge)
    # Items 8 and 9 take the places of interest; items 1 and 8, and 2, those of collaborative.
    assert worths["interest"].popularity_hits == 0.0
    assert worths["collaborative"].popularity_hits == 1.0
    assert worths["interest"].difference.value == 0.5
    assert worths["collaborative"].difference.value == 0.0
    for one in worths.values():
        assert one.difference.low <= one.difference.value <= one.difference.high


def test_what_no_other_source_found_is_counted_of_targets_only(judge: Judge) -> None:
    worths = worths_of([ANSWERS], judge)
    # Interest alone found item 0, collaborative alone item 2 (and 5, no target); both found item 1.
    assert worths["interest"].only_it == 0.5
    assert worths["collaborative"].only_it == 0.5


def test_states_are_summed_and_figures_averaged_over_seeds(judge: Judge) -> None:
    nothing = replay_of(
        [[5, -1, -1, -1], [6, -1, -1, -1]],
        [[B, 0, 0, 0], [B, 0, 0, 0]],
        [[{B}, set(), set(), set()], [{B}, set(), set(), set()]],
    )
    worths = worths_of([ANSWERS, nothing], judge)
    assert worths["collaborative"].answers == {"ok": 2, "empty": 2}
    assert worths["collaborative"].places == 1.25
    assert worths["collaborative"].hits == 0.5
    assert worths["interest"].hits == 0.25
    assert worths["interest"].answers == {"ok": 4}
    # In the second answers popularity finds item 1 and item 2 in collaborative's places.
    assert worths["collaborative"].popularity_hits == 1.0
    assert worths["collaborative"].difference.value == pytest.approx(-0.5)


def test_a_source_that_was_not_asked_is_left_out_and_one_that_led_nothing_is_worth_nothing(judge: Judge) -> None:
    only = replace(ANSWERS, source_states={"group": {"empty": 2}})
    [group] = source_worths([only], judge, POPULAR, np.random.default_rng(0))
    assert group.name == source_name(channel_pb2.SOURCE_GROUP)
    assert (group.places, group.hits, group.popularity_hits, group.only_it) == (0, 0, 0, 0)
    assert group.answers == {"empty": 2}
