from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.coea.protocol import CategorySplit
from tests.benchmarks.coea.worlds import catalogue, histories


def test_the_last_click_is_tested_and_the_one_before_validated() -> None:
    split = CategorySplit.leave_last_out(histories([[1, 2, 3, 4, 5]]), catalogue(6))

    assert split.training.categories.tolist() == [1, 2, 3]
    assert split.validation.histories.categories.tolist() == [1, 2, 3]
    assert split.test.histories.categories.tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(split.validation.targets[0]).tolist() == [3]
    assert np.flatnonzero(split.test.targets[0]).tolist() == [4]
    assert split.test.recent == ((4, 3, 2),)


def test_targets_of_the_second_of_the_latest_known_click_are_tied() -> None:
    times = [[1, 2, 3, 4, 5], [1, 2, 3, 5, 5], [1, 2, 4, 4, 5]]

    split = CategorySplit.leave_last_out(histories([[1, 2, 3, 4, 5]] * 3, times), catalogue(6))

    assert split.validation.tied.tolist() == [False, False, True]
    assert split.test.tied.tolist() == [False, True, False]


def test_users_with_fewer_than_three_clicks_only_train() -> None:
    split = CategorySplit.leave_last_out(histories([[1, 2], [1, 2, 3]]), catalogue(4))

    assert split.test.users.tolist() == [1]
    assert split.training.categories.tolist() == [1, 2, 1]


def test_candidates_leave_the_latest_categories_out_and_targets_among_them_cannot_be_hit() -> None:
    split = CategorySplit.leave_last_out(histories([[4, 1, 2, 3, 3, 2], [4, 1, 2, 3, 3, 4]]), catalogue(5))

    assert split.test.recent == ((3, 2, 1), (3, 2, 1))
    assert split.test.candidates.tolist() == [[False, False, False, True, True]] * 2
    assert split.test.reachable.any(axis=1).tolist() == [False, True]
    assert not split.test.novel_targets.any()


def test_time_splits_the_clicks_and_targets_are_the_period_s_categories() -> None:
    clicks = [[1, 2, 3, 1, 1, 2, 1, 2, 4, 5], [1, 1, 1, 1, 1, 1, 1, 1, 2, 3], [2]]
    times = [list(range(10)), list(range(10)), [9]]

    split = CategorySplit.by_time(histories(clicks, times), catalogue(5))

    assert (
        split.training.times.max() < split.validation.histories.times.max() + 1 <= split.test.histories.times.max() + 1
    )
    assert split.validation.histories is split.training
    assert 2 not in split.test.users  # knows nothing of them before the cut
    for row, user in enumerate(split.test.users.tolist()):
        cut = split.test.histories.times.max()
        later = {number for number, time in zip(clicks[user], times[user], strict=True) if time > cut}
        assert set((np.flatnonzero(split.test.targets[row]) + 1).tolist()) == later


def test_the_long_tail_is_the_least_clicked_fifth() -> None:
    clicks = [[number] * (number + 3) for number in range(1, 11)]

    split = CategorySplit.leave_last_out(histories(clicks), catalogue(10))

    assert np.flatnonzero(split.long_tail).tolist() == [0, 1]


@given(st.lists(st.lists(st.integers(0, 5), min_size=0, max_size=12), min_size=1, max_size=6))
def test_no_episode_knows_its_own_target_click(clicks: list[list[int]]) -> None:
    whole = histories(clicks)

    split = CategorySplit.leave_last_out(whole, catalogue(5))

    counts = np.diff(whole.offsets)
    known = np.diff(split.test.histories.offsets)
    trained = np.diff(split.training.offsets)
    assert (known == counts - (counts >= 3)).all()
    assert (trained == counts - 2 * (counts >= 3)).all()
