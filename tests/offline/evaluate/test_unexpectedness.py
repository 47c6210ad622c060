"""Surprisals by hand, what must hold of any of them, and the weights that follow."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serendipity.offline.evaluate.unexpectedness import FELT, felt_weights, surprisals

CLICK_COUNTS = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=st.integers(0, 50))
SURPRISALS = st.lists(st.floats(0, 40), min_size=1, max_size=30).map(np.array)


def test_surprisals_of_two_users_and_three_categories_are_as_worked_out_by_hand() -> None:
    # Clicks without a category are left out.
    own_clicks = np.array([[9, 6, 2, 0], [0, 0, 2, 2]], np.float32)
    # Overall shares of category 1 to 3, one click more in each of the four: (6 + 1, 4 + 1, 2 + 1) / (12 + 4).
    overall = [Fraction(7, 16), Fraction(5, 16), Fraction(3, 16)]
    # Σ_u share_us · share_uc, for shares (3/4, 1/4, 0) and (0, 1/2, 1/2).
    together = [
        [Fraction(9, 16), Fraction(3, 16), Fraction(0)],
        [Fraction(3, 16), Fraction(1, 16) + Fraction(1, 4), Fraction(1, 4)],
        [Fraction(0), Fraction(1, 4), Fraction(1, 4)],
    ]
    held = [Fraction(3, 4), Fraction(3, 4), Fraction(1, 2)]
    given_s = [[(together[s][c] + 5 * overall[c]) / (held[s] + 5) for c in range(3)] for s in range(3)]
    first = [Fraction(3, 4) * given_s[0][c] + Fraction(1, 4) * given_s[1][c] for c in range(3)]
    second = [(given_s[1][c] + given_s[2][c]) / 2 for c in range(3)]
    expected = [
        [(clicks + 200 * prior) / (8 + 200) for clicks, prior in zip((6, 2, 0), first, strict=True)],
        [(clicks + 200 * prior) / (4 + 200) for clicks, prior in zip((0, 2, 2), second, strict=True)],
    ]
    found = surprisals(own_clicks, np.array([0, 1]))
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1:], -np.log2(np.array(expected, np.float64)), rtol=1e-9)
    np.testing.assert_array_equal(surprisals(own_clicks, np.array([1])), found[[1]])


def test_a_user_without_clicks_is_surprised_by_what_everybody_clicks_least() -> None:
    found = surprisals(np.array([[0, 6, 2, 0], [0, 0, 0, 0]], np.float32), np.array([1]))[0]
    np.testing.assert_allclose(found[1:], -np.log2(np.array([7, 3, 1]) / 12), rtol=1e-9)


@given(CLICK_COUNTS)
def test_surprisals_are_those_of_a_distribution_for_every_user(own_clicks: np.ndarray) -> None:
    found = surprisals(own_clicks, np.arange(len(own_clicks)))
    assert (found[:, 1:] > 0).all()
    total = (2.0 ** -found[:, 1:]).sum(axis=1)
    # What is missing to 1 is the share of items without a category, which nobody's clicks count in.
    without = 1 / (own_clicks[:, 1:].sum() + own_clicks.shape[1])
    assert (total <= 1 + 1e-9).all()
    assert (total >= 1 - without - 1e-9).all()


@given(CLICK_COUNTS, st.integers(0, 10), st.integers(1, 40))
def test_the_more_a_user_clicks_in_the_only_category_the_less_it_surprises(
    own_clicks: np.ndarray, user: int, more: int
) -> None:
    user %= len(own_clicks)
    own_clicks[user] = 0
    own_clicks[user, 1] = 1
    before = surprisals(own_clicks, np.array([user]))[0, 1]
    own_clicks[user, 1] += more
    assert surprisals(own_clicks, np.array([user]))[0, 1] < before


def test_every_further_click_in_a_category_lowers_its_surprisal() -> None:
    others = [[0, 4, 4, 0], [0, 0, 5, 5], [0, 3, 0, 3]]
    found = [surprisals(np.array([[0, n, 10, 10], *others], np.float32), np.array([0]))[0, 1] for n in range(0, 60, 3)]
    assert (np.diff(found) < 0).all()


def test_what_like_users_click_surprises_less_than_what_they_do_not() -> None:
    # As many clicks in 2 as in 3 overall, but those who click in 1 also click in 2.
    own_clicks = np.array([[0, 10, 0, 0], [0, 10, 10, 0], [0, 10, 10, 0], [0, 0, 0, 20]], np.float32)
    found = surprisals(own_clicks, np.array([0]))[0]
    assert found[1] < found[2] < found[3]


@given(SURPRISALS)
def test_felt_weights_have_mean_one_and_rise_with_surprisal(surprisal: np.ndarray) -> None:
    weights = felt_weights(surprisal)
    assert weights.mean() == pytest.approx(1)
    for one, its_weight in zip(surprisal, weights, strict=True):
        assert (weights[surprisal == one] == its_weight).all()
        assert (weights[surprisal > one] > its_weight).all()


@given(st.lists(st.floats(0, 40), min_size=2, max_size=30, unique=True).map(np.array))
def test_least_and_most_surprising_target_are_weighed_by_the_ends_of_what_was_felt(surprisal: np.ndarray) -> None:
    weights = felt_weights(surprisal)
    places = np.argsort(np.argsort(surprisal)) * 4 / (len(surprisal) - 1)
    mean = np.interp(places, range(5), FELT).mean()
    assert weights[surprisal.argmin()] == pytest.approx(FELT[0] / mean)
    assert weights[surprisal.argmax()] == pytest.approx(FELT[-1] / mean)


def test_five_targets_are_weighed_by_the_five_levels_that_were_felt() -> None:
    weights = felt_weights(np.array([3.0, 9.0, 1.0, 5.0, 7.0]))
    np.testing.assert_allclose(weights, np.array(FELT)[[1, 4, 0, 2, 3]] / np.mean(FELT))


def test_equally_surprising_targets_share_the_middle_of_their_places() -> None:
    # Places 0, then 1 to 3 shared, then 4.
    weights = felt_weights(np.array([2.0, 5.0, 2.0, 1.0, 2.0]))
    felt = np.array([FELT[2], FELT[4], FELT[2], FELT[0], FELT[2]])
    np.testing.assert_allclose(weights, felt / felt.mean())


def test_one_target_and_equal_ones_weigh_one_and_none_nothing() -> None:
    assert felt_weights(np.array([7.0])).tolist() == [1.0]
    np.testing.assert_allclose(felt_weights(np.array([7.0, 7.0, 7.0])), [1, 1, 1])
    assert felt_weights(np.empty(0)).tolist() == []
