"""Which lists are made."""

from __future__ import annotations

import numpy as np

from serendipity.groups.sequence import DEFAULT_GROUP, latest_distinct
from serendipity.keys import BACK_OFF
from serendipity.offline.coevolution.lists import choose_lists
from tests.offline.coevolution.closed_loop_world import histories


def test_every_user_is_answered_at_every_m_and_every_group_without_categories() -> None:
    found = histories()
    groups = (np.arange(len(found)) % 2 + 1).astype(np.int32)

    told = choose_lists(found, groups, 2, common_categories=0)

    keys = {(group, frozenset(recent)) for group, recent in told}
    assert len(keys) == len(told)
    for user, group in enumerate(groups.tolist()):
        recent = tuple(latest_distinct(found.clicks_before(user, int(found.times.max()) + 1)))
        assert {(group, frozenset(recent[:m])) for m in BACK_OFF if m <= len(recent)} <= keys
    assert {group for group, recent in told if not recent} == {DEFAULT_GROUP, 1, 2}


def test_a_user_who_moved_is_answered_by_both_groups() -> None:
    found = histories()
    now, served = np.full(len(found), 2, np.int32), np.full(len(found), 1, np.int32)

    both = {(group, frozenset(recent)) for group, recent in choose_lists(found, now, 2, 0, served)}

    assert both >= {(group, frozenset(recent)) for group, recent in choose_lists(found, now, 2, 0)}
    assert both >= {(group, frozenset(recent)) for group, recent in choose_lists(found, served, 2, 0)}
