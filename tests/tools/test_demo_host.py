"""The lists that the demo's host has of its own."""

from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.logs.histories import Histories
from serendipity.tools.demo_host import DEPTH, HostLists, host_lists
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import DAY, SmallWorld


@pytest.fixture(scope="module")
def histories(small_world: SmallWorld) -> Histories:
    return make_small_histories(small_world)


def _clicked(histories: Histories, user: int) -> list[int]:
    rows: list[int] = (histories.items[histories.offsets[user] : histories.offsets[user + 1]] - 1).tolist()
    return rows


def _lists(world: SmallWorld, histories: Histories) -> dict[int, HostLists]:
    """Lists of five users as of the end of the histories."""
    users = np.flatnonzero(np.diff(histories.offsets) > 0)[:5].tolist()
    return dict(zip(users, host_lists(histories, world.catalogue, UNTIL, users), strict=True))


def test_a_host_has_each_item_once_and_none_that_the_user_has_clicked(
    small_world: SmallWorld, histories: Histories
) -> None:
    for user, host in _lists(small_world, histories).items():
        assert DEPTH <= len(host.have) <= 2 * DEPTH
        assert len(set(host.have)) == len(host.have)
        assert set(host.have).isdisjoint(small_world.item_ids[row] for row in _clicked(histories, user))


def test_plain_popularity_shows_what_is_novel_most_clicked_first(small_world: SmallWorld, histories: Histories) -> None:
    lately = (histories.times >= UNTIL - 28 * DAY) & (histories.items > 0)
    pairs = np.unique(np.stack([histories.users[lately], histories.items[lately] - 1]), axis=1)
    popularity = np.bincount(pairs[1], minlength=len(small_world.item_ids))
    categories = small_world.catalogue.item_categories
    for user, host in _lists(small_world, histories).items():
        assert host.novel
        assert set(categories[host.novel]).isdisjoint(categories[_clicked(histories, user)])
        assert (np.diff(popularity[host.novel]) <= 0).all()


def test_what_came_after_the_moment_is_not_known(small_world: SmallWorld) -> None:
    fewer = make_small_histories(small_world, wanted=1, usual=1)
    moment = int(fewer.times.min()) + 40 * DAY
    user = int(fewer.users[np.argmin(fewer.times)])
    more = make_small_histories(small_world)
    assert host_lists(fewer, small_world.catalogue, moment, [user]) == host_lists(
        more, small_world.catalogue, moment, [user]
    )
