"""Counts of the clicks before a cut, by hand."""

import numpy as np
import pytest

from serendipity.offline.evaluate.click_statistics import RECENT_DAYS, ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

DAY = 86_400
CUT = 1_000 * DAY

# Items 0-1 in category 1, 2 and 4 in category 2, 3 without one; nobody clicks item 4 before the cut. −1: no known item.
ITEM_CATEGORIES = np.array([1, 1, 2, 0, 2], np.int32)
CLICKS = [
    (0, 0, CUT - 100 * DAY), (0, 0, CUT - 50 * DAY), (0, 0, CUT - DAY), (0, 2, CUT - 1),
    (1, 0, CUT - 30 * DAY), (1, 1, CUT - 28 * DAY), (1, -1, CUT - 5), (1, 3, CUT - 3 * DAY),
    (2, 0, CUT - 28 * DAY - 1), (2, 2, CUT - 10), (2, 2, CUT - 5),
]  # fmt: skip
LATER = [(0, 1, CUT), (1, 2, CUT), (2, 4, CUT + 5), (2, 0, CUT + DAY), (3, 3, CUT + 2)]


def statistics_of(clicks: list[tuple[int, int, int]]) -> ClickStatistics:
    clicks = sorted(clicks, key=lambda click: (click[0], click[2], click[1]))
    users, rows, times = (np.array([click[i] for click in clicks], np.int64) for i in range(3))
    catalogue = Catalogue(
        item_ids=[f"i{n}" for n in range(5)],
        titles=[""] * 5,
        paths=[()] * 5,
        brands=[""] * 5,
        tags=[()] * 5,
        available=np.ones(5, np.bool_),
        prices=np.full(5, np.nan, np.float32),
        categories=["a", "b"],
        item_categories=ITEM_CATEGORIES,
        category_offsets=np.array([0, 2, 4]),
        novelty_level=0,
    )
    histories = Histories(
        user_ids=["a", "b", "c", "d"],
        profiles=[{}] * 4,
        offsets=np.searchsorted(users, np.arange(5)),
        items=rows + 1,
        categories=np.where(rows >= 0, ITEM_CATEGORIES[rows], 0).astype(np.int32),
        times=times,
        search_offsets=np.zeros(5, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )
    return ClickStatistics.of(histories, HeldOut.between(histories, catalogue, CUT, CUT + 10 * DAY))


def test_users_of_an_item_count_once_however_often_they_click_it() -> None:
    assert RECENT_DAYS == 28
    assert statistics_of(CLICKS).users.tolist() == [3, 1, 2, 1, 0]


def test_recent_users_clicked_in_the_last_28_days() -> None:
    # Of item 0 only user 0 again; the click of user 2 is one second too old, that of user 1 on item 1 is not.
    assert statistics_of(CLICKS).recent_users.tolist() == [1, 1, 2, 1, 0]


def test_the_first_click_of_an_item_is_anybodys_and_the_cut_where_there_is_none() -> None:
    first = statistics_of(CLICKS).first_clicks
    assert first.tolist() == [CUT - 100 * DAY, CUT - 28 * DAY, CUT - 10, CUT - 3 * DAY, CUT]


def test_own_clicks_count_every_click_by_category() -> None:
    assert statistics_of(CLICKS).own_clicks.tolist() == [[0, 3, 1], [1, 2, 0], [0, 1, 2], [0, 0, 0]]


def test_categories_never_clicked_in_are_told_apart_and_no_category_is_none_of_them() -> None:
    statistics = statistics_of(CLICKS)
    never = [[False, False, False], [False, False, True], [False, False, False], [False, True, True]]
    assert statistics.never.tolist() == never
    # Asking twice gives the same, and leaves the counts.
    assert statistics.never.tolist() == never
    assert statistics.own_clicks[1].tolist() == [1, 2, 0]


def test_clicks_at_and_after_the_cut_are_not_looked_at() -> None:
    without, with_them = statistics_of(CLICKS), statistics_of(CLICKS + LATER)
    for name in ("users", "recent_users", "first_clicks", "own_clicks", "trend", "never"):
        np.testing.assert_array_equal(getattr(with_them, name), getattr(without, name))


def test_the_trend_of_an_item_is_its_recent_share_beside_that_of_all() -> None:
    # 7 users of items in all, 5 of them recent: s = 5/7, and 4 users' worth of s in every item.
    share = 5 / 7
    expected = [
        (1 + 4 * share) / (3 + 4) / share,
        (1 + 4 * share) / (1 + 4) / share,
        (2 + 4 * share) / (2 + 4) / share,
        (1 + 4 * share) / (1 + 4) / share,
        1.0,
    ]
    np.testing.assert_allclose(statistics_of(CLICKS).trend, expected, rtol=1e-6)


def test_an_item_with_recent_users_has_more_trend_than_one_without() -> None:
    trend = ClickStatistics(
        users=np.array([100, 100, 100], np.float32),
        recent_users=np.array([50, 20, 0], np.float32),
        first_clicks=np.zeros(3, np.int64),
        own_clicks=np.zeros((1, 2), np.float32),
    ).trend
    assert trend[0] > 1 > trend[1] > trend[2] > 0


def test_without_any_recent_click_the_trend_is_still_finite() -> None:
    old = [click for click in CLICKS if click[2] < CUT - 28 * DAY]
    trend = statistics_of(old).trend
    assert np.isfinite(trend).all()
    assert (trend > 0).all()
    assert trend[0] == pytest.approx(4 / (3 + 4), rel=1e-5)
