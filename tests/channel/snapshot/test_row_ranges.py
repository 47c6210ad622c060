from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serendipity.channel.snapshot.row_ranges import OwnedRanges, RowRanges

OFFSETS = np.array([0, 10, 10, 500, 1_200, 1_201, 2_900], np.int64)

NUM_ROWS = 16

some_rows = st.sets(st.integers(0, NUM_ROWS - 1))
"""Few enough that ranges often touch."""

owners = st.lists(some_rows, max_size=5)


def ranges_of(*categories: int) -> RowRanges:
    allowed = np.zeros(len(OFFSETS), np.bool_)
    allowed[list(categories)] = True
    return RowRanges.of_categories(allowed, OFFSETS)


def ranges_with(rows: set[int]) -> RowRanges:
    starts = np.array(sorted(rows), np.int64)
    return RowRanges.union(starts, starts + 1)


def owned_by(drawn: list[set[int]]) -> OwnedRanges:
    return OwnedRanges.of([ranges_with(rows) for rows in drawn])


def rows_by_owner(owned: OwnedRanges) -> list[list[int]]:
    """Rows of each owner, as often as it has them."""
    found: list[list[int]] = [[] for _ in range(owned.num_owners)]
    for start, end, owner in zip(owned.starts.tolist(), owned.ends.tolist(), owned.owners.tolist(), strict=True):
        found[owner] += range(start, end)
    return found


def test_neighbouring_categories_are_one_range() -> None:
    ranges = ranges_of(1, 2, 3, 5)
    assert ranges.starts.tolist() == [0, 1_200]
    assert ranges.ends.tolist() == [500, 1_201]
    assert len(ranges) == 501


def test_empty_categories_have_no_rows() -> None:
    assert len(ranges_of(2)) == 0
    assert len(ranges_of()) == 0
    assert ranges_of(2).rows().tolist() == []


@given(st.sets(st.integers(1, 6)))
def test_categories_have_the_rows_between_their_offsets(categories: set[int]) -> None:
    expected = [row for c in sorted(categories) for row in range(OFFSETS[c - 1], OFFSETS[c])]
    ranges = ranges_of(*categories)
    assert ranges.rows().tolist() == expected
    assert (ranges.starts[1:] >= ranges.ends[:-1]).all()
    assert (ranges.ends > ranges.starts).all()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6), st.data())
def test_a_union_has_each_row_once_in_ranges_that_are_apart(drawn: list[tuple[int, int]], data: st.DataObject) -> None:
    """Of ranges in any order that may overlap, be empty or be the wrong way round."""
    ranges = RowRanges.union(np.array([a for a, _ in drawn], np.int64), np.array([b for _, b in drawn], np.int64))
    expected = sorted({row for start, end in drawn for row in range(start, end)})
    assert ranges.rows().tolist() == expected
    assert len(ranges) == len(expected)
    assert (ranges.starts[1:] > ranges.ends[:-1]).all()
    at = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=9)) if expected else []
    assert ranges.rows_at(np.array(at, np.int64)).tolist() == [expected[i] for i in at]


@given(owners)
def test_owners_have_their_own_rows_and_may_share_some(drawn: list[set[int]]) -> None:
    owned = owned_by(drawn)
    assert owned.num_owners == len(drawn)
    assert rows_by_owner(owned) == [sorted(rows) for rows in drawn]
    assert (np.diff(owned.owners) >= 0).all()


@settings(max_examples=300)
@given(owners, some_rows)
def test_what_is_within_allowed_rows_is_the_intersection(drawn: list[set[int]], allowed: set[int]) -> None:
    within = owned_by(drawn).within(ranges_with(allowed))
    assert within.num_owners == len(drawn)
    assert rows_by_owner(within) == [sorted(rows & allowed) for rows in drawn]
    # An owner without rows is not mentioned: that tells which interests lead nowhere.
    assert (within.ends > within.starts).all()
    assert set(within.owners.tolist()) == {i for i, rows in enumerate(drawn) if rows & allowed}
    assert (np.diff(within.owners) >= 0).all()


@given(owners, st.data())
def test_owners_taken_are_numbered_in_the_order_given(drawn: list[set[int]], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(range(len(drawn))), unique=True)) if drawn else []
    taken = owned_by(drawn).take(np.array(some, np.int64))
    assert taken.num_owners == len(some)
    assert rows_by_owner(taken) == [sorted(drawn[i]) for i in some]
    assert (np.diff(taken.owners) >= 0).all()


@settings(max_examples=300)
@given(owners, some_rows)
def test_each_owner_contains_its_rows_and_no_others(drawn: list[set[int]], asked: set[int]) -> None:
    rows = sorted(asked)
    contained = owned_by(drawn).contain(np.array(rows, np.int64))
    assert contained.shape == (len(rows), len(drawn))
    assert contained.tolist() == [[row in each for each in drawn] for row in rows]


@given(owners, some_rows, st.data())
def test_cutting_taking_and_asking_go_together(drawn: list[set[int]], allowed: set[int], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(range(len(drawn))), unique=True)) if drawn else []
    owned, every, at = owned_by(drawn), np.arange(NUM_ROWS), np.array(some, np.int64)
    taken = owned.within(ranges_with(allowed)).take(at).contain(every)
    np.testing.assert_array_equal(taken, owned.take(at).within(ranges_with(allowed)).contain(every))
    inside = np.isin(every, sorted(allowed))[:, None]
    np.testing.assert_array_equal(taken, (owned.contain(every) & inside)[:, at])
