from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.hierarchical_bandits import CategoryTree, HierarchicalBandit, upper_bounds
from benchmarks.coea.metrics import ranked
from benchmarks.coea.protocol import CategorySplit, category_counts
from tests.benchmarks.coea.worlds import catalogue, histories


def split_of_two_tastes() -> CategorySplit:
    """Half the users click categories 1 … 6, the other half 7 … 12, the first of each half most."""
    rng = np.random.default_rng(0)
    clicks = []
    for user in range(40):
        first = 1 if user % 2 else 7
        clicks.append([first + min(int(rng.geometric(0.4)) - 1, 5) for _ in range(40)])
    return CategorySplit.leave_last_out(histories(clicks), catalogue(12))


def test_a_node_s_bound_is_that_of_ridge_regression() -> None:
    vectors = [np.array([[1.0, 0.0], [0.0, 1.0]])]

    (values,) = upper_bounds(vectors, [np.array([[3.0, 0.0]])], [np.array([[3.0, 3.0]])], alpha=2.0)

    assert values[0].tolist() == pytest.approx([3 / 4 + 2 * np.sqrt(1 / 4), 0 + 2 * np.sqrt(1 / 4)])


def test_the_tree_holds_every_category_once_and_sums_its_clicks() -> None:
    split = split_of_two_tastes()
    counts = category_counts(split.training, 12)
    tree = CategoryTree.of(counts, 4, seed=0)

    clicks = tree.clicks(counts)

    assert len(tree.vectors[-1]) == 12
    assert len(tree.vectors[0]) <= 6
    assert all((level.sum(axis=1) == counts.sum(axis=1)).all() for level in clicks)
    for ancestors, level in zip(tree.leaf_ancestors(), tree.vectors, strict=True):
        assert ancestors.max() < len(level)


@pytest.mark.parametrize("progressive", [False, True])
def test_users_are_first_shown_categories_of_their_own_taste(progressive: bool) -> None:
    split = split_of_two_tastes()
    fitted = HierarchicalBandit(progressive=progressive, dim=4).fit(split, 0)

    top = ranked(fitted.scores(split.test, {"alpha": 0.0}), split.test, 1)[:, 0]

    own = np.array([top[row] < 6 if user % 2 else top[row] >= 6 for row, user in enumerate(split.test.users.tolist())])
    assert own.mean() > 0.8


def test_every_candidate_is_ranked_exactly_once() -> None:
    split = split_of_two_tastes()
    for progressive in (False, True):
        scores = HierarchicalBandit(progressive=progressive, dim=4).fit(split, 0).scores(split.test, {"alpha": 1.0})
        assert (np.sort(-scores, axis=1) == np.arange(12)).all()
