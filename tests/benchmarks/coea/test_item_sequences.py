from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.coea.item_sequences import PADDING, ItemSequences, ItemVocabulary
from tests.benchmarks.coea.worlds import catalogue, histories

Users = st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=6)


def sequences(users: list[list[int]]) -> ItemSequences:
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
    return ItemSequences(np.array([item for user in users for item in user], np.int64), offsets)


def test_a_window_holds_the_latest_clicks_of_one_user_and_padding_behind() -> None:
    windows, filled = sequences([[1, 2, 3], [], [4, 5]]).windows(np.array([3, 4, 5]), 2)

    assert windows.tolist() == [[2, 3], [4, PADDING], [4, 5]]
    assert filled.tolist() == [2, 1, 2]


@given(Users, st.integers(1, 5))
def test_windows_never_reach_into_another_user(users: list[list[int]], length: int) -> None:
    made = sequences(users)

    windows, filled = made.windows(made.ends_after_another(), length)

    expected = [user[: end + 1][-length:] for user in users for end in range(1, len(user))]
    assert [row[:count].tolist() for row, count in zip(windows, filled, strict=True)] == expected


@given(Users, st.integers(0, 5))
def test_the_last_click_of_some_users_is_held_out_and_no_other(users: list[list[int]], most: int) -> None:
    made = sequences(users)

    rest, contexts, answers = made.with_last_held_out(most, np.random.default_rng(0))

    assert len(answers) == min(most, sum(len(user) >= 3 for user in users))
    assert len(rest.items) == len(made.items) - len(answers)
    ends = [made.items[made.offsets[user] : made.offsets[user + 1]].tolist() for user in range(len(users))]
    for row, answer in enumerate(answers.tolist()):
        context = contexts.items[contexts.offsets[row] : contexts.offsets[row + 1]].tolist()
        assert [*context, answer] in ends


def test_the_rest_of_a_category_is_one_item_that_shares_its_probability_evenly() -> None:
    shop = catalogue(2, items_each=3)
    clicks = replace(histories([[1, 2, 2]]), items=np.array([1, 4, 4]))

    vocabulary = ItemVocabulary.of(clicks, shop, 1)

    assert vocabulary.numbers.tolist() == [2, 2, 2, 1, 3, 3]
    assert vocabulary.size == 3
    scores = vocabulary.item_scores(
        np.log(np.array([[0, 0.5, 0.3, 0.2]], np.float32), where=[[False, True, True, True]])
    )
    assert np.exp(scores[0]) == pytest.approx([0.1, 0.1, 0.1, 0.5, 0.1, 0.1])


def test_clicks_on_what_is_not_in_the_catalogue_are_left_out() -> None:
    clicks = replace(histories([[1, 2], [1]]), items=np.array([1, 0, 1]))

    made = ItemVocabulary.of(clicks, catalogue(2), 10).sequences(clicks)

    assert made.offsets.tolist() == [0, 1, 2]
