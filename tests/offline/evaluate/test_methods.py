"""Figures of several methods side by side: by name over seeds, paired ratios, and evaluations laid together."""

import numpy as np
import pytest

from serendipity.offline.evaluate.held_out import Targets
from serendipity.offline.evaluate.measures import EXCLUSIVE, Judge
from serendipity.offline.evaluate.methods import MethodResult, RankedLists, measure_methods

DEPTHS = (1, 2)


@pytest.fixture
def judge() -> Judge:
    """Two users with the targets 0 and 1, and 2; only the first has one that was never clicked in."""
    targets = Targets.from_pairs(np.array([5, 5, 8]), np.array([0, 1, 2]))
    ones, counts = np.ones(3), np.array([2.0, 1.0])
    weights = {"recall": (ones, counts), "never": (np.array([1.0, 1.0, 0.0]), np.array([2.0, 0.0]))}
    return Judge(targets, weights, np.array([[1], [-1]]))


def lists(name: str, seed: int | None, novel: list[list[int]], exclusive: list[list[int]] | None = None) -> RankedLists:
    return RankedLists(name, "control", seed, np.array(novel), None if exclusive is None else np.array(exclusive))


def result(name: str, values: list[list[float]]) -> MethodResult:
    return MethodResult(name, "channel", tuple(range(len(values))), {("recall", 1): np.array(values)})


def test_lists_of_one_name_are_measured_together_in_the_order_of_their_seeds(judge: Judge) -> None:
    found = measure_methods(
        [
            lists("ALS", 3, [[0, 1], [2, 4]]),
            lists("popularity", None, [[4, 0], [4, 4]]),
            lists("ALS", 1, [[0, 4], [4, 2]]),
        ],
        judge,
        DEPTHS,
    )
    assert [(one.name, one.kind, one.seeds) for one in found] == [
        ("ALS", "control", (3, 1)),
        ("popularity", "control", (None,)),
    ]
    assert found[0].per_user["recall", 1].tolist() == [[0.5, 1], [0.5, 0]]
    assert found[0].per_user["recall", 2].tolist() == [[1, 1], [0.5, 1]]
    assert found[1].per_user["recall", 2].tolist() == [[0.5, 0]]
    np.testing.assert_array_equal(found[0].per_user["never", 2], [[1, np.nan], [0.5, np.nan]])


def test_exclusive_hits_are_measured_on_their_own_lists_and_only_where_those_were_made(judge: Judge) -> None:
    with_them, without = measure_methods(
        [lists("channel", 0, [[4, 4], [4, 4]], [[0, 1], [4, 2]]), lists("source", 0, [[0, 1], [4, 2]])], judge, DEPTHS
    )
    # Item 1 is the host's own for the first user.
    assert with_them.per_user[EXCLUSIVE, 2].tolist() == [[1, 1]]
    assert with_them.per_user["recall", 2].tolist() == [[0, 0]]
    assert (EXCLUSIVE, 2) not in without.per_user
    assert np.isnan(without.mean(EXCLUSIVE, 2))


def test_means_are_over_the_users_who_have_such_a_target_and_then_over_seeds(judge: Judge) -> None:
    [found] = measure_methods([lists("ALS", 0, [[0, 1], [2, 4]]), lists("ALS", 1, [[0, 4], [4, 4]])], judge, DEPTHS)
    assert found.by_seed("never", 2).tolist() == [1, 0.5]
    assert found.mean("never", 2) == 0.75
    assert found.by_seed("recall", 2).tolist() == [1, 0.25]
    assert found.mean("recall", 2) == 0.625


def test_a_measure_that_nobody_has_a_target_of_has_no_mean() -> None:
    empty = MethodResult("a", "control", (0, 1), {("never", 1): np.full((2, 3), np.nan)})
    assert np.isnan(empty.by_seed("never", 1)).all()
    assert empty.by_seed("never", 1).shape == (2,)
    assert np.isnan(empty.mean("never", 1))


def test_a_ratio_is_paired_by_user() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(200) + 0.1
    # Twice as much for every user: whoever is drawn, the ratio is 2, though users differ.
    ratio = result("a", [(2 * base).tolist()]).ratio_to(result("b", [base.tolist()]), "recall", 1, rng, 100)
    assert ratio is not None
    np.testing.assert_allclose([ratio.value, ratio.low, ratio.high], 2)


def test_a_ratio_takes_the_mean_over_seeds_and_leaves_out_users_without_such_a_target() -> None:
    ours = result("a", [[1.0, np.nan, 0.5], [0.0, np.nan, 0.5]])
    theirs = result("b", [[0.25, np.nan, 0.25]])
    ratio = ours.ratio_to(theirs, "recall", 1, np.random.default_rng(0), 50)
    assert ratio is not None
    assert ratio.value == pytest.approx(2)
    assert ratio.low <= 2 <= ratio.high


def test_there_is_no_ratio_where_either_was_not_measured_or_nobody_has_such_a_target() -> None:
    rng = np.random.default_rng(0)
    measured, nobody = result("a", [[1.0, 0.5]]), result("b", [[np.nan, np.nan]])
    other = MethodResult("c", "control", (None,), {})
    assert measured.ratio_to(other, "recall", 1, rng, 10) is None
    assert other.ratio_to(measured, "recall", 1, rng, 10) is None
    assert measured.ratio_to(measured, "recall", 2, rng, 10) is None
    assert nobody.ratio_to(nobody, "recall", 1, rng, 10) is None
