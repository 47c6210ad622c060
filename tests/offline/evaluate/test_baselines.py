import numpy as np
import pytest
from scipy import sparse

from serendipity.offline.evaluate.baselines import BASELINES, als, popularity
from serendipity.offline.evaluate.held_out import HeldOut, Targets

NUM_USERS, NUM_ITEMS = 60, 40


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
    none = Targets.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    return HeldOut(
        cut=0,
        until=1,
        candidates=np.flatnonzero(seen.any(axis=0)),
        seen=sparse.csr_matrix(seen),
        clicked=np.zeros((NUM_USERS, 2), np.bool_),
        item_categories=np.ones(NUM_ITEMS, np.int32),
        targets=none,
        novel=none,
    )


def test_popularity_ranks_by_distinct_users_for_everyone(two_tastes: HeldOut) -> None:
    scores = popularity(two_tastes)(np.array([0, 1, 2]))
    expected = np.asarray(two_tastes.seen.sum(axis=0)).ravel()[two_tastes.candidates]
    np.testing.assert_array_equal(scores, np.tile(expected, (3, 1)))


@pytest.mark.parametrize("name", ["ALS", "BPR"])
def test_factorisations_find_the_users_own_taste(two_tastes: HeldOut, name: str) -> None:
    users = np.flatnonzero(np.diff(two_tastes.seen.indptr))
    top = two_tastes.top_k(BASELINES[name](two_tastes, 0), users, 5, novel=False)
    own = (top >= 20) == (users % 2 == 1)[:, None]
    assert own.mean() > 0.9


def test_a_seed_gives_the_same_scores_again(two_tastes: HeldOut) -> None:
    users = np.arange(8)
    np.testing.assert_array_equal(als(two_tastes, 3)(users), als(two_tastes, 3)(users))
