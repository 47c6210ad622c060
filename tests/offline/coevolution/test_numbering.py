"""Later logs by the numbers of a build."""

from __future__ import annotations

import numpy as np

from serendipity.offline.coevolution.numbering import numbered_as, numbers_by_name
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


def _catalogue(items: dict[str, str], categories: list[str]) -> Catalogue:
    numbers = np.array([categories.index(name) + 1 if name else 0 for name in items.values()], np.int32)
    n = len(items)
    return Catalogue(
        list(items), [""] * n, [(name,) for name in items.values()], [""] * n, [()] * n, np.ones(n, np.bool_),
        np.full(n, np.nan, np.float32), categories, numbers, np.zeros(len(categories) + 1, np.int64), 0,
    )  # fmt: skip


def test_logs_of_another_catalogue_are_read_by_ids_and_names() -> None:
    ours = _catalogue({"a": "A", "b": "B"}, ["A", "B"])
    theirs = _catalogue({"new": "B", "b": "C", "z": "Z", "a": "A", "n": ""}, ["A", "B", "C", "Z"])
    histories = _histories({"u": [(1, 2, 1), (2, 3, 2), (3, 4, 3), (4, 1, 4), (5, 0, 5)], "v": [(4, 1, 1)]})

    found = numbered_as(histories, theirs, ours, 0)
    assert found.offsets.tolist() == [0, 3, 4]
    assert found.items.tolist() == [0, 2, 1, 1]
    assert found.categories.tolist() == [2, 2, 1, 1]
    assert found.times.tolist() == [1, 2, 4, 1]
    assert found.searches_before(1, 9) == [("search of v", 5)]
    # What the build knew already stays, category or not.
    assert numbered_as(histories, theirs, ours, 6).times.tolist() == [1, 2, 3, 4, 5, 1]
    assert numbers_by_name(theirs, ours).tolist() == [0, 1, 2, 0, 0]
