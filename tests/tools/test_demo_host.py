"""The lists that the demo's host has of its own."""

from __future__ import annotations

import numpy as np

from serendipity.tools.demo_host import DEPTH, host_items
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import SmallWorld


def test_a_host_has_each_item_once_and_none_that_the_user_has_clicked(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world)
    users = np.flatnonzero(np.diff(histories.offsets) > 0)[:5].tolist()
    for user, items in zip(users, host_items(histories, small_world.catalogue, UNTIL, users), strict=True):
        own = histories.items[histories.offsets[user] : histories.offsets[user + 1]] - 1
        assert DEPTH <= len(items) <= 2 * DEPTH
        assert len(set(items)) == len(items)
        assert set(items).isdisjoint(small_world.item_ids[row] for row in own)


def test_what_came_after_the_moment_is_not_known(small_world: SmallWorld) -> None:
    fewer = make_small_histories(small_world, wanted=1, usual=1)
    moment = int(fewer.times.min()) + 40 * 86_400
    user = int(fewer.users[np.argmin(fewer.times)])
    more = make_small_histories(small_world)
    assert host_items(fewer, small_world.catalogue, moment, [user]) == host_items(
        more, small_world.catalogue, moment, [user]
    )
