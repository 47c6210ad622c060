import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.item_statistics import WINDOWS, ItemClicks

DAY = 86_400
NUM_ITEMS = 4


def made_of(clicks: list[tuple[int, int, int]]) -> Histories:
    """Histories of three users from (user, item, time)."""
    clicks = sorted(clicks, key=lambda click: (click[0], click[2], click[1]))
    users, items, times = (np.array([click[i] for click in clicks], np.int64) for i in range(3))
    return Histories(
        user_ids=["a", "b", "c"],
        profiles=[{}, {}, {}],
        offsets=np.searchsorted(users, np.arange(4)),
        items=items,
        categories=np.ones(len(items), np.int32),
        times=times,
        search_offsets=np.zeros(4, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, NUM_ITEMS), st.integers(0, 120 * DAY)), max_size=40),
    st.integers(0, 121 * DAY),
)
def test_statistics_are_those_of_the_clicks_before(clicks: list[tuple[int, int, int]], time: int) -> None:
    found = ItemClicks(made_of(clicks), NUM_ITEMS).at(time, half_life_days=14)
    for row in range(NUM_ITEMS):
        before = [(user, at) for user, item, at in clicks if item == row + 1 and at < time]
        assert found.clicks[row] == len(before)
        assert found.users[row] == len({user for user, _ in before})
        for window, days in enumerate(WINDOWS):
            assert found.recent_clicks[window, row] == sum(at >= time - days * DAY for _, at in before)
        decayed = sum(2 ** (-(time - at) / (14 * DAY)) for _, at in before)
        assert found.popularity[row] == pytest.approx(decayed)
        assert found.age[row] == (time - min(at for _, at in before) if before else -1)


def test_a_click_weighs_half_after_a_half_life() -> None:
    statistics = ItemClicks(made_of([(0, 1, 0)]), 1).at(14 * DAY, half_life_days=14)
    assert statistics.popularity.tolist() == [0.5]
