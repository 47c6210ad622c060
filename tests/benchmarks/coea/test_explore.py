from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.category_ranker import RankerConfig
from benchmarks.coea.explore import Explore, clayton, jaccard_distances, scaled
from benchmarks.coea.metrics import mean, measures, ranked
from benchmarks.coea.neural_linear_bandit import NeuralLinearBandit
from benchmarks.coea.protocol import CategorySplit
from tests.benchmarks.coea.worlds import catalogue, cyclists

RANKER = RankerConfig(epochs=8, moments=20, learning_rate=1e-2, batch=64)


@pytest.fixture(scope="module")
def split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(), catalogue(8))


def test_clayton_s_copula_has_its_margins_and_its_closed_form() -> None:
    r, one = np.array([0.2, 0.7]), np.ones(2)

    assert clayton(r, one, 0.5).tolist() == pytest.approx(r.tolist())
    assert clayton(one, r, 2.0).tolist() == pytest.approx(r.tolist())
    assert clayton(np.array([0.25]), np.array([0.25]), 0.5)[0] == pytest.approx((2 + 2 - 1) ** -2)


def test_jaccard_distance_of_the_users_of_two_categories() -> None:
    taken = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.bool_)

    distances = jaccard_distances(taken)

    assert distances[0, 1] == pytest.approx(1 - 2 / 3)
    assert distances[1, 2] == pytest.approx(1 - 1 / 2)
    assert np.diag(distances).tolist() == [0, 0, 0]


def test_scaling_looks_at_candidates_alone() -> None:
    values = np.array([[100.0, 1.0, 3.0, 2.0]])

    assert scaled(values, np.array([[False, True, True, True]]))[0, 1:].tolist() == [0.0, 1.0, 0.5]
    assert scaled(np.ones((1, 2)), np.ones((1, 2), np.bool_)).tolist() == [[1.0, 1.0]]


def test_without_distance_explore_ranks_as_its_relevance_does(split: CategorySplit) -> None:
    fitted = Explore(ranker=RANKER).fit(split, 0)

    lists = ranked(fitted.scores(split.test, {"alpha": 0.5, "strength": 0.0}), split.test, 1)

    assert (lists == ranked(fitted.ranker.scores(split.test), split.test, 1)).all()


def test_the_bandit_without_exploration_finds_the_next_of_a_cycle_and_with_much_does_not(split: CategorySplit) -> None:
    fitted = NeuralLinearBandit(ranker=RANKER).fit(split, 0)

    def hit(alpha: float) -> float:
        lists = ranked(fitted.scores(split.test, {"alpha": alpha}), split.test)
        return mean(measures(lists, split.test, split, 1)["C-H@1"])

    assert hit(0.0) > 0.9
    assert hit(1000.0) < 0.6
    again = NeuralLinearBandit(ranker=RANKER).fit(split, 0)
    assert (again.scores(split.test, {"alpha": 1.0}) == fitted.scores(split.test, {"alpha": 1.0})).all()
