"""New logs joined to the histories: every click once, in order; every exposure with its user."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.coevolution.increment import Increment, join_increment, numbers_by_name
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


def _histories(clicks: dict[str, list[tuple[int, int, int]]]) -> Histories:
    """clicks: user → (item, category, time), oldest first."""
    users = sorted(clicks)
    rows = [row for user in users for row in clicks[user]]
    columns = np.array(rows, np.int64).reshape(-1, 3)
    offsets = np.cumsum([0, *(len(clicks[user]) for user in users)]).astype(np.int64)
    return Histories(
        user_ids=users,
        profiles=[{"of": user} for user in users],
        offsets=offsets,
        items=columns[:, 0],
        categories=columns[:, 1].astype(np.int32),
        times=columns[:, 2],
        search_offsets=np.arange(len(users) + 1, dtype=np.int64),
        searches=[f"search of {user}" for user in users],
        search_times=np.full(len(users), 5, np.int64),
    )


def _increment(rows: list[tuple[str, int, int, int]]) -> Increment:
    columns = np.array([row[1:] for row in rows], np.int64).reshape(-1, 3)
    return Increment([row[0] for row in rows], columns[:, 0], columns[:, 1].astype(np.int32), columns[:, 2])


def _catalogue(items: dict[str, str], categories: list[str]) -> Catalogue:
    numbers = np.array([categories.index(name) + 1 if name else 0 for name in items.values()], np.int32)
    n = len(items)
    return Catalogue(
        list(items), [""] * n, [(name,) for name in items.values()], [""] * n, [()] * n, np.ones(n, np.bool_),
        np.full(n, np.nan, np.float32), categories, numbers, np.zeros(len(categories) + 1, np.int64), 0,
    )  # fmt: skip


def test_new_clicks_are_sorted_in_and_known_ones_are_not_repeated() -> None:
    histories = _histories({"b": [(1, 1, 10), (2, 1, 20)], "d": [(3, 2, 15)]})
    new = _increment([("b", 4, 2, 15), ("b", 2, 1, 20), ("c", 1, 1, 7), ("d", 0, 2, 15), ("d", 0, 2, 15)])

    merged = join_increment(histories, new)

    assert merged.user_ids == ["b", "c", "d"]
    assert merged.offsets.tolist() == [0, 3, 4, 6]
    assert merged.items.tolist() == [1, 4, 2, 1, 3, 0]
    assert merged.categories.tolist() == [1, 2, 1, 1, 2, 2]


def test_profiles_and_searches_stay_with_their_users() -> None:
    histories = _histories({"b": [(1, 1, 10)], "d": [(3, 2, 15)]})

    merged = join_increment(histories, _increment([("a", 1, 1, 1), ("c", 1, 1, 1)]))

    assert merged.profiles == [{}, {"of": "b"}, {}, {"of": "d"}]
    assert [merged.searches_before(user, 9) for user in range(4)] == [
        [], [("search of b", 5)], [], [("search of d", 5)]
    ]  # fmt: skip


_row = st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 2), st.integers(0, 4))


@given(old=st.lists(_row, max_size=12, unique=True), new=st.lists(_row, max_size=12))
def test_nothing_is_lost_nothing_is_double_and_users_stay_in_order(
    old: list[tuple[str, int, int, int]], new: list[tuple[str, int, int, int]]
) -> None:
    by_user = {user: sorted((row[1:] for row in old if row[0] == user), key=lambda row: row[2]) for user in "abc"}
    merged = join_increment(_histories(by_user), _increment(new))

    users = [merged.user_ids[user] for user in merged.users]
    found = list(zip(users, merged.items.tolist(), merged.categories.tolist(), merged.times.tolist(), strict=True))
    assert set(old) <= set(found)

    def key(row: tuple[str, int, int, int]) -> tuple[str, int, int]:
        return (row[0], row[3], row[1] or -row[2])

    assert {key(row) for row in found} == {key(row) for row in [*old, *new]}
    assert len({key(row) for row in found} - {key(row) for row in old}) == len(found) - len(old)
    for start, end in itertools.pairwise(merged.offsets):
        assert np.all(np.diff(merged.times[start:end]) >= 0)


def test_logs_of_another_catalogue_are_read_by_ids_and_names() -> None:
    ours = _catalogue({"a": "A", "b": "B"}, ["A", "B"])
    theirs = _catalogue({"new": "B", "b": "C", "z": "Z", "a": "A", "n": ""}, ["A", "B", "C", "Z"])
    histories = _histories({"u": [(1, 2, 1), (2, 3, 2), (3, 4, 3), (4, 1, 4), (5, 0, 5)]})

    found = Increment.of_logs(histories, theirs, ours)

    assert found.items.tolist() == [0, 2, 1]
    assert found.categories.tolist() == [2, 2, 1]
    assert found.times.tolist() == [1, 2, 4]
    assert numbers_by_name(theirs, ours).tolist() == [0, 1, 2, 0, 0]


def test_exposures_of_several_logs_are_shown_to_their_users_by_time() -> None:
    def exposures(rows: list[list[tuple[int, int]]]) -> Exposures:
        columns = np.array([row for user in rows for row in user], np.int64).reshape(-1, 2)
        return Exposures(
            np.cumsum([0, *map(len, rows)]).astype(np.int64), columns[:, 0].astype(np.int32), columns[:, 1]
        )

    before = _histories({"b": [(1, 1, 10)], "d": [(3, 2, 15)]})
    since = _histories({"a": [(1, 1, 1)], "d": [(3, 2, 15)], "gone": [(1, 1, 1)]})
    merged = join_increment(before, _increment([("a", 1, 1, 1)]))
    old, new = exposures([[(1, 100)], [(2, 100), (0, 100)]]), exposures([[(3, 100)], [(1, 90)], [(2, 90)]])

    joined = Exposures.join([(before, old), (since, new)], merged)

    assert joined.offsets.tolist() == [0, 1, 2, 5]
    assert [joined.shown(user, 95, 10) for user in range(3)] == [{3}, {1}, {1, 2}]
    assert joined.shown(2, 85, 10) == {1}
