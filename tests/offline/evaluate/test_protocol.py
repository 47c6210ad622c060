"""What counts as a target."""

from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.evaluate.protocol import Period, find_targets
from serendipity.offline.logs.histories import Histories


def _histories(*users: list[tuple[int, int, int]]) -> Histories:
    """Each user's clicks as (item number, category number, time), ascending in time."""
    clicks = [click for user in users for click in user]
    items, categories, times = (np.array(column) for column in zip(*clicks, strict=True))
    return Histories(
        user_ids=[f"user-{u}" for u in range(len(users))],
        profiles=[{} for _ in users],
        offsets=np.cumsum([0, *(len(user) for user in users)]).astype(np.int64),
        items=items.astype(np.int64),
        categories=categories.astype(np.int32),
        times=times.astype(np.int64),
        search_offsets=np.zeros(len(users) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def test_targets_are_new_items_of_the_period_and_novel_by_the_frozen_window() -> None:
    histories = _histories(
        [(1, 1, 10), (2, 2, 20), (1, 1, 100), (3, 3, 110), (4, 3, 120), (5, 1, 130), (3, 3, 140), (6, 4, 200)],
        [(9, 1, 50)],
        [(7, 2, 150), (8, 0, 160)],
    )
    targets = find_targets(histories, Period(100, 200), num_categories=4)
    assert targets.users.tolist() == [0, 2]
    assert targets.cold.tolist() == [False, True]
    assert targets.lists.offsets.tolist() == [0, 3, 5]
    assert targets.lists.items.tolist() == [3, 4, 5, 7, 8]
    # Item 4 is of category 3 as item 3 is: novel at the cut, no longer when it was clicked. Category 0 is never novel.
    assert targets.novel.tolist() == [True, True, False, True, False]
    assert targets.rolling_novel.tolist() == [True, False, False, True, False]
    assert targets.novel_lists.counts.tolist() == [2, 1]
    assert targets.rolling_novel_lists.items.tolist() == [3, 7]


def test_a_category_that_left_the_window_is_novel_again() -> None:
    old = [(1, 1, 10)] + [(100 + i, 2, 20 + i) for i in range(200)]
    targets = find_targets(_histories([*old, (5, 1, 1000), (6, 2, 1001)]), Period(1000, 2000), num_categories=2)
    assert targets.novel.tolist() == [True, False]


def test_clicks_of_one_moment_do_not_make_each_other_known() -> None:
    histories = _histories([(1, 1, 10), (2, 2, 100), (3, 2, 100), (4, 2, 101)])
    targets = find_targets(histories, Period(100, 200), num_categories=2)
    assert targets.rolling_novel.tolist() == [True, True, False]


def test_keeping_some_users_keeps_their_targets() -> None:
    histories = _histories([(1, 1, 100)], [(2, 1, 100), (3, 2, 101)], [(4, 1, 100)])
    targets = find_targets(histories, Period(100, 200), num_categories=2)
    some = targets.of_users(np.array([False, True, True]))
    assert (some.users.tolist(), some.lists.items.tolist(), some.novel.tolist()) == ([1, 2], [2, 3, 4], [True] * 3)


def test_an_empty_period_is_refused() -> None:
    with pytest.raises(ValueError, match="found cut 5 and until 5"):
        Period(5, 5)
