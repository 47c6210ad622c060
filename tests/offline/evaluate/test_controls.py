"""Every control against numbers worked out by hand, or by the dense formula of its paper."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from serendipity.offline.evaluate import controls
from serendipity.offline.evaluate.controls import (
    als,
    ease,
    fused,
    popularity,
    with_trend,
)
from serendipity.offline.evaluate.held_out import HeldOut, Targets

NUM_USERS, NUM_ITEMS = 60, 40


def held_out_of(
    seen: np.ndarray, categories: list[int], clicked: np.ndarray | None = None, novel: Sequence[tuple[int, int]] = ()
) -> HeldOut:
    """Held-out time with given clicks before the cut and given (user, item row) novel targets after it."""
    if clicked is None:
        clicked = np.zeros((len(seen), max(categories) + 1), np.bool_)
        clicked[:, 0] = True
    owners, rows = (np.array([pair[i] for pair in novel], np.int64) for i in range(2))
    targets = Targets.from_pairs(owners, rows)
    return HeldOut(
        cut=0,
        until=1,
        candidates=np.flatnonzero(np.asarray(seen).any(axis=0)).astype(np.int64),
        seen=sparse.csr_matrix(np.asarray(seen, np.float32)),
        clicked=clicked,
        item_categories=np.array(categories, np.int32),
        targets=targets,
        novel=targets,
    )


@pytest.fixture
def two_tastes() -> HeldOut:
    """Even users click the first 20 items, odd ones the last 20; items of higher row less often."""
    rng = np.random.default_rng(0)
    seen = np.zeros((NUM_USERS, NUM_ITEMS), np.float32)
    for user in range(NUM_USERS):
        weights = 1.0 / (1 + np.arange(20))
        chosen = rng.choice(20, 8, replace=False, p=weights / weights.sum())
        seen[user, chosen + 20 * (user % 2)] = 1
    seen[:, 20:] *= rng.random((NUM_USERS, 1)) < 0.8
    return held_out_of(seen, [1] * NUM_ITEMS)


def test_popularity_is_the_count_of_every_candidate_for_everyone() -> None:
    # Nobody clicked item 1 before the cut: it is not a candidate.
    held_out = held_out_of([[1, 0, 1, 1], [1, 0, 0, 0]], [1] * 4)
    scores = popularity(held_out, np.array([5, 9, 1, 0], np.float32))(np.array([1, 0]))
    assert scores.tolist() == [[5, 1, 0], [5, 1, 0]]


def test_scores_are_multiplied_by_a_power_of_the_trend_and_negative_ones_count_as_nothing() -> None:
    held_out = held_out_of([[1, 0, 1, 1]], [1] * 4)
    trend = np.array([4, 100, 9, 0.25], np.float32)
    scores = with_trend(held_out, lambda some: np.tile(np.float32([2, -1, 3]), (len(some), 1)), trend, 0.5)
    assert scores(np.array([0])).tolist() == [[4, 0, 1.5]]


def test_an_exponent_of_nought_leaves_positive_scores() -> None:
    held_out = held_out_of([[1, 1]], [1, 1])
    scores = with_trend(held_out, lambda some: np.float32([[2, -1]]), np.array([3, 7], np.float32), 0.0)
    assert scores(np.array([0])).tolist() == [[2, 0]]


def dense_ease(clicks: np.ndarray, ridge: float) -> np.ndarray:
    """Σ_i X_ui · (−P_ij / P_jj) over i ≠ j, as the paper has it."""
    inverse = np.linalg.inv(clicks.T @ clicks + ridge * np.eye(clicks.shape[1]))
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    return clicks @ weights


def test_ease_of_two_items_is_what_the_inverse_by_hand_gives() -> None:
    # XᵀX + I = [[3, 1], [1, 2]], its inverse [[2, −1], [−1, 3]] / 5, so item 0 speaks for item 1 with 1/3.
    held_out = held_out_of([[1, 1], [1, 0]], [1, 1])
    assert ease(held_out, 1.0)(np.array([1]))[0, 1] == pytest.approx(1 / 3, rel=1e-6)
    # XᵀX + I of one user and one item more, who have nothing to do with them, leaves it at that.
    apart = held_out_of([[1, 1, 0], [1, 0, 0], [0, 0, 1]], [1, 1, 1])
    np.testing.assert_allclose(ease(apart, 1.0)(np.array([1]))[0, 1:], [1 / 3, 0], rtol=1e-6, atol=1e-7)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.5, 3.0, 100.0, 3_000.0]))
def test_ease_by_items_and_by_users_are_both_the_dense_formula(
    seed: int, num_users: int, num_items: int, ridge: float
) -> None:
    rng = np.random.default_rng(seed)
    seen = (rng.random((num_users, num_items)) < rng.choice([0.2, 0.5, 0.9])).astype(np.float64)
    seen[0, 0] = 1
    held_out = held_out_of(seen, [1] * num_items)
    clicks = seen[:, held_out.candidates]
    users = rng.permutation(num_users)
    new = clicks[users] == 0
    expected = dense_ease(clicks, ridge)[users]
    by_items = controls._ease_by_items(sparse.csr_matrix(clicks), ridge)(users)
    by_users = controls._ease_by_users(sparse.csc_matrix(clicks), ridge)(users)
    for scores in (by_items, by_users, ease(held_out, ridge)(users)):
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores[new], expected[new], rtol=1e-3, atol=1e-6)


def test_ease_by_users_may_take_the_items_in_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clicks = (np.random.default_rng(1).random((5, 23)) < 0.4).astype(np.float64)
    clicks[0] = 1
    whole = ease(held_out_of(clicks, [1] * 23), 10.0)(np.arange(5))
    monkeypatch.setattr(controls, "_COLUMNS", 4)
    np.testing.assert_allclose(ease(held_out_of(clicks, [1] * 23), 10.0)(np.arange(5)), whole, rtol=1e-5)


def test_ease_of_too_many_users_and_items_scores_the_items_with_most_users(monkeypatch: pytest.MonkeyPatch) -> None:
    clicks = np.array([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]], np.float64)
    monkeypatch.setattr(controls, "_EASE_LIMIT", 3)
    scores = ease(held_out_of(clicks, [1] * 5), 2.0)(np.arange(4))
    most = np.array([0, 1, 4])
    expected = dense_ease(clicks[:, most], 2.0)
    new = clicks[:, most] == 0
    np.testing.assert_allclose(scores[:, most][new], expected[new], rtol=1e-5)
    assert not scores[:, [2, 3]].any()


def test_fused_scores_are_the_sum_of_reciprocal_ranks() -> None:
    one = np.float32([[3, 2, 1], [0.1, 0.2, 0.3]])
    other = np.float32([[10, 30, 20], [7, 6, 5]])
    scores = fused([lambda some: one[some], lambda some: other[some]])(np.array([0, 1]))
    np.testing.assert_allclose(
        scores,
        [[1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62],
         [1 / 63 + 1 / 61, 1 / 62 + 1 / 62, 1 / 61 + 1 / 63]],
        rtol=1e-6,
    )  # fmt: skip


def test_ranks_past_the_first_thousand_do_not_count_in_fused_scores() -> None:
    falling = np.arange(1_005, 0, -1, dtype=np.float32)
    scores = fused([lambda some: np.broadcast_to(falling, (len(some), 1_005))])(np.array([0, 0]))
    np.testing.assert_allclose(scores[1, :1_000], 1 / (60 + np.arange(1, 1_001)), rtol=1e-6)
    assert not scores[:, 1_000:].any()


def test_als_finds_the_users_own_taste(two_tastes: HeldOut) -> None:
    users = np.flatnonzero(np.diff(two_tastes.seen.indptr))
    top = two_tastes.top_k(als(two_tastes, 4, 1.0, 0), users, 5, novel=False)
    own = (top >= 20) == (users % 2 == 1)[:, None]
    assert own.mean() > 0.9


def test_ease_finds_the_users_own_taste(two_tastes: HeldOut) -> None:
    users = np.flatnonzero(np.diff(two_tastes.seen.indptr))
    top = two_tastes.top_k(ease(two_tastes, 10.0), users, 5, novel=False)
    own = (top >= 20) == (users % 2 == 1)[:, None]
    assert own.mean() > 0.9


def test_a_seed_gives_the_same_als_scores_again_and_another_seed_others(two_tastes: HeldOut) -> None:
    users = np.arange(8)
    scores = als(two_tastes, 8, 1.0, 3)(users)
    np.testing.assert_array_equal(als(two_tastes, 8, 1.0, 3)(users), scores)
    assert not np.array_equal(als(two_tastes, 8, 1.0, 4)(users), scores)
