"""The posterior of an interest's weight: bounded, monotone, fading, and blind to the order of events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.channel.recall.interest_weights import (
    ItemEvents,
    faded_counts,
    weight_factors,
)
from serendipity.channel.snapshot.row_ranges import OwnedRanges, RowRanges

DAY = 86_400.0
NUM_ROWS = 100

events_of = st.lists(st.tuples(st.integers(0, NUM_ROWS - 1), st.floats(0, 60 * DAY)), max_size=60)
stored_weights = st.lists(st.integers(0, 1000).map(lambda weight: weight / 1000), min_size=4, max_size=4)


def ranges(*pairs: tuple[int, int]) -> RowRanges:
    return RowRanges(np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64))


GROUNDINGS = OwnedRanges.of([ranges((0, 10)), ranges((5, 20), (40, 60)), ranges((90, 100)), ranges()])


def events(pairs: list[tuple[int, float]]) -> ItemEvents:
    return ItemEvents(np.array([row for row, _ in pairs], np.int64), np.array([age for _, age in pairs], np.float64))


def factors(
    weights: list[float], clicks: list[tuple[int, float]], exposures: list[tuple[int, float]]
) -> NDArray[np.float32]:
    counted = [faded_counts(events(pairs), GROUNDINGS) for pairs in (clicks, exposures)]
    return weight_factors(np.array(weights, np.float32), *counted)


@given(stored_weights, events_of, events_of)
def test_a_weight_stays_within_its_bounds(
    weights: list[float], clicks: list[tuple[int, float]], exposures: list[tuple[int, float]]
) -> None:
    found = factors(weights, clicks, exposures)
    assert ((found >= 0.25) & (found <= 4)).all()
    moved = np.array(weights, np.float32) * found
    assert ((moved >= 0) & (moved <= np.float32(1.000001))).all()


@given(stored_weights, events_of, events_of, st.integers(0, NUM_ROWS - 1), st.floats(0, 60 * DAY))
def test_a_click_never_lowers_and_an_exposure_never_raises_a_weight(
    weights: list[float], clicks: list[tuple[int, float]], exposures: list[tuple[int, float]], row: int, age: float
) -> None:
    before = factors(weights, clicks, exposures)
    assert (factors(weights, [*clicks, (row, age)], exposures) >= before - 1e-5).all()
    assert (factors(weights, clicks, [*exposures, (row, age)]) <= before + 1e-5).all()


@given(stored_weights, events_of, events_of, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(
    weights: list[float], clicks: list[tuple[int, float]], exposures: list[tuple[int, float]], chance: object
) -> None:
    before = factors(weights, clicks, exposures)
    for pairs in (clicks, exposures):
        chance.shuffle(pairs)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(factors(weights, clicks, exposures), before)


@given(stored_weights, events_of, events_of)
def test_old_events_leave_the_stored_weight(
    weights: list[float], clicks: list[tuple[int, float]], exposures: list[tuple[int, float]]
) -> None:
    long_ago = [[(row, age + 400 * DAY) for row, age in pairs] for pairs in (clicks, exposures)]
    np.testing.assert_allclose(factors(weights, *long_ago), 1.0, atol=1e-4)


def test_what_two_places_report_of_the_same_second_counts_once() -> None:
    both = ItemEvents.union(events([(3, 5.0), (4, 5.0)]), ItemEvents.none(), events([(3, 5.0), (3, 6.0)]))
    assert sorted(zip(both.rows.tolist(), both.ages.tolist(), strict=True)) == [(3, 5), (3, 6), (4, 5)]


def test_without_events_nothing_moves() -> None:
    np.testing.assert_array_equal(factors([0.9, 0.5, 0.0, 1.0], [], []), 1.0)


def test_counts_are_those_of_each_groundings_rows() -> None:
    found = faded_counts(events([(0, 0), (9, 7 * DAY), (5, 0), (10, 0), (59, 0), (60, 0)]), GROUNDINGS, 7 * DAY)
    np.testing.assert_allclose(found, [2.5, 3.5, 0, 0])


def test_the_posterior_is_the_mean_of_the_beta_distribution() -> None:
    exposures = [(i, 0.0) for i in range(10)]
    found = factors([0.5, 0.5, 0.5, 0.5], [(0, 0.0)], exposures)
    # Beta(10 + 1, 10 + 9): one click among ten exposures.
    assert found[0] == pytest.approx((11 / 30) / 0.5)
    # A click that was never exposed is a trial of its own.
    assert factors([0.5, 0, 0, 0], [(0, 0.0)], [])[0] == pytest.approx((11 / 21) / 0.5)


def test_a_half_life_halves_what_an_event_weighs() -> None:
    fresh, old = (faded_counts(events([(95, age)]), GROUNDINGS, 7 * DAY)[2] for age in (0.0, 7 * DAY))
    assert old == pytest.approx(fresh / 2)


def test_events_outside_the_catalogue_and_of_the_future_are_tolerated() -> None:
    found = ItemEvents.of(np.array([0, 3]), np.array([100, 300]), now=200)
    assert found.rows.tolist() == [2]
    assert found.ages.tolist() == [0.0]
