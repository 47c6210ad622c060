"""Which lists a search reads: the nearest that hold anything that may be shown, and enough of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serendipity.inverted_lists import InvertedLists


def lists(centroids: list[list[float]], sizes: list[int], offsets: list[int]) -> InvertedLists:
    return InvertedLists(np.array(centroids, np.float32), np.array(sizes), np.array(offsets))


# Categories of two lists, of none and of three.
LISTS = lists([[1, 0], [0, 1], [0.5, 0], [0.9, 0], [-1, 0]], [10, 20, 30, 5, 40], [0, 2, 2, 5])
EVERY = np.ones(4, np.bool_)
QUERY = np.array([1, 0], np.float32)


def test_the_nearest_are_read_best_first_until_they_hold_enough() -> None:
    for least, expected in ((1, [0]), (10, [0]), (11, [0, 3]), (15, [0, 3]), (16, [0, 3, 2]), (46, [0, 3, 2, 1])):
        assert LISTS.nearest(QUERY, EVERY, least).tolist() == expected


def test_all_are_read_where_even_they_do_not_hold_enough() -> None:
    assert LISTS.nearest(QUERY, EVERY, 10_000).tolist() == [0, 3, 2, 1, 4]


def test_lists_of_other_categories_are_not_read_however_near() -> None:
    assert LISTS.nearest(QUERY, np.array([True, False, True, True]), 1).tolist() == [3]
    assert LISTS.nearest(-QUERY, np.array([True, True, True, False]), 1_000).tolist() == [1, 0]
    # A category without lists, none at all, and that of items without one.
    assert LISTS.nearest(QUERY, np.array([False, False, True, False]), 1).tolist() == []
    assert LISTS.nearest(QUERY, np.zeros(4, np.bool_), 1).tolist() == []
    assert LISTS.nearest(QUERY, np.array([True, False, False, False]), 1).tolist() == []


def test_lists_that_lie_alike_are_read_in_their_order() -> None:
    alike = lists([[1, 0]] * 4, [1, 1, 1, 1], [0, 4])
    assert alike.nearest(QUERY, np.ones(2, np.bool_), 3).tolist() == [0, 1, 2]


@given(
    seed=st.integers(0, 2**16),
    of_categories=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    least=st.integers(1, 400),
    data=st.data(),
)
def test_reading_agrees_with_a_plain_reading(
    seed: int, of_categories: list[int], least: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    num_lists = sum(of_categories)
    sizes = rng.integers(0, 50, num_lists)
    kept_apart = InvertedLists(
        rng.normal(size=(num_lists, 3)).astype(np.float32), sizes, np.concatenate([[0], np.cumsum(of_categories)])
    )
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(of_categories), max_size=len(of_categories))))
    query = rng.normal(size=3).astype(np.float32)
    read = kept_apart.nearest(query, np.concatenate([[True], allowed]), least).tolist()
    category_of = np.repeat(np.arange(len(of_categories)), of_categories).tolist()
    may_be_read = [i for i in range(num_lists) if allowed[category_of[i]]]
    by_nearness = sorted(may_be_read, key=lambda i: -float(kept_apart.centroids[i] @ query))
    assert read == by_nearness[: len(read)]
    assert sum(sizes[read]) >= least or len(read) == len(may_be_read)
    assert sum(sizes[read[:-1]]) < least
