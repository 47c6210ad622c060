"""Arrays of a catalogue that candidates are ranked by, of clicks made up by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serendipity import layout
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.snapshot.catalogue_arrays import category_vectors, item_statistics
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import DAY, NOW, SmallWorld

UNCATEGORISED = 0


@pytest.fixture
def catalogue(small_world: SmallWorld) -> Catalogue:
    """Six items: three categories of two items, one and two, and an item of none."""
    numbers = np.array([1, 1, 2, 3, 3, UNCATEGORISED], np.int32)
    ids = [f"i{row}" for row in range(len(numbers))]
    return replace(
        small_world.catalogue,
        item_ids=ids,
        titles=ids,
        paths=[("c",)] * len(ids),
        categories=["a", "b", "c"],
        item_categories=numbers,
        category_offsets=np.array([0, 2, 3, 5]),
    )


def histories_of(*users: list[tuple[int, float]]) -> Histories:
    """Lay out clicks of (row, days before NOW) by user; row −1 is an item that the catalogue lacks."""
    clicks = [sorted(user, key=lambda click: -click[1]) for user in users]
    items = np.array([row + 1 for user in clicks for row, _ in user], np.int64)
    return Histories(
        user_ids=[f"u{number}" for number in range(len(users))],
        profiles=[{} for _ in users],
        offsets=np.cumsum([0, *map(len, clicks)]).astype(np.int64),
        items=items,
        categories=np.zeros(len(items), np.int32),
        times=np.array([NOW - days * DAY for user in clicks for _, days in user], np.int64),
        search_offsets=np.zeros(len(users) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def test_items_have_their_late_clicks_their_trend_and_the_share_of_their_category(catalogue: Catalogue) -> None:
    # Nine clicks, three of them of 7 days, five of 28; another is of no item that is known, and one comes too late.
    histories = histories_of(
        [(0, 1), (0, 2), (0, 40), (2, 60), (-1, 1)],
        [(0, 3), (0, 20), (2, 70), (3, 10), (3, 90), (4, 0)],
    )
    found = item_statistics(histories, catalogue, NOW)
    columns = dict(zip(layout.ITEM_STATISTICS_COLUMNS, found.T, strict=True))
    assert found.dtype == np.float32
    assert columns["item_clicks_28d"] == pytest.approx(np.log1p([4, 0, 0, 1, 0, 0]))
    # Of 9 clicks 3 are of the last 7 days, so that many a click leads to expect; three are taken to be as expected.
    late_7, late_28, ever = np.array([3, 0, 0, 0, 0, 0]), np.array([4, 0, 0, 1, 0, 0]), np.array([5, 0, 2, 2, 0, 0])
    assert columns["item_trend_7d"] == pytest.approx(np.log((late_7 + 3) / (ever * 3 / 9 + 3)), rel=1e-5)
    assert columns["item_trend_28d"] == pytest.approx(np.log((late_28 + 3) / (ever * 5 / 9 + 3)), rel=1e-5)
    # Categories 0 to 3 have 0, 5, 2 and 2 clicks, and one more each.
    shares = np.log(np.array([1, 6, 3, 3]) / 13)
    assert columns["category_share"] == pytest.approx(shares[catalogue.item_categories], rel=1e-5)


def test_an_item_that_nobody_clicked_has_no_clicks_and_no_trend(catalogue: Catalogue) -> None:
    found = item_statistics(histories_of([]), catalogue, NOW)
    assert (found[:, :3] == 0).all()
    assert np.allclose(found[:, 3], np.log(1 / 4))


def test_categories_are_as_alike_as_those_who_clicked_in_them(catalogue: Catalogue) -> None:
    # a: users 0, 1, 2; b: 1, 2; c: 3. How often, and of which item, says nothing.
    users = [[(0, 5), (0, 6), (1, 7)], [(0, 5), (2, 5)], [(1, 3), (2, 2), (2, 1)], [(4, 5), (5, 5)]]
    vectors = category_vectors(histories_of(*users), catalogue, NOW)
    assert vectors.dtype == np.float32
    cosines = np.array([[1, 2 / 6**0.5, 0], [2 / 6**0.5, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(vectors[1:] @ vectors[1:].T, cosines, atol=1e-6)
    assert not vectors[UNCATEGORISED].any()


def test_a_category_that_nobody_clicked_in_has_no_direction(catalogue: Catalogue) -> None:
    vectors = category_vectors(histories_of([(0, 5)], [(0, 5), (2, 5)]), catalogue, NOW)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0, 1, 1, 0])
    nowhere = category_vectors(histories_of([(5, 5), (-1, 5)]), catalogue, NOW)
    assert nowhere.shape[0] == 4
    assert not nowhere.any()


def test_neither_knows_what_came_at_the_moment_or_after(small_world: SmallWorld) -> None:
    world, before = make_small_histories(small_world), make_small_histories(small_world, wanted=0, usual=0)
    assert len(world.times) > len(before.times)
    for of in (item_statistics, category_vectors):
        np.testing.assert_array_equal(of(world, small_world.catalogue, NOW), of(before, small_world.catalogue, NOW))
        assert not np.array_equal(of(world, small_world.catalogue, NOW), of(world, small_world.catalogue, UNTIL))


def test_the_same_clicks_make_the_same_arrays(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world)
    for of in (item_statistics, category_vectors):
        first = of(histories, small_world.catalogue, NOW)
        assert first.tobytes() == of(histories, small_world.catalogue, NOW).tobytes()
