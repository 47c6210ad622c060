"""Online metrics, counted by hand on the tiny slice, and what a ranking's first exposures are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.exposures.kuairand import write_kuairand
from benchmarks.exposures.log import ExposureLog
from benchmarks.exposures.metrics import NOVEL_CLICK_RATE, Resamples, Sums, online_sums
from benchmarks.exposures.ranking import first_of_all, first_of_each, ordered_pairs
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig
from tests.fixtures.exposures_slice import FROM, log_of, write_tiny_slice


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> ExposureLog:
    """Exposures of user 0: of 12, 14, 14 and 15; of user 1: of 12; of user 2: of 13."""
    directory = tmp_path_factory.mktemp("exposures")
    host, logs = directory / "host", directory / "logs"
    write_kuairand(write_tiny_slice(directory / "slice"), host)
    build_logs(host, logs, LogsConfig(), now=FROM + 86_400)
    return ExposureLog.read(host, Histories.read(logs), Catalogue.read(logs))


def test_novelty_is_judged_by_the_clicks_before_each_exposure(log: ExposureLog) -> None:
    # Tag 7 is new to user 0 until the first click on it; to user 2 everything is.
    assert log.novel.tolist() == [False, True, False, False, True, True]
    assert log.clicked.tolist() == [True, True, False, True, True, False]
    assert log.liked.tolist() == [True, False, False, False, False, False]


def test_the_eight_metrics(log: ExposureLog) -> None:
    resamples = Resamples(3, seed=0, samples=50)
    found = {name: resamples.ratio(sums) for name, sums in online_sums(log, 3).items()}
    assert {name: ratio.value for name, ratio in found.items()} == pytest.approx(
        {
            "ENR": 3 / 6,
            "CNR": 2 / 4,
            "ACC-1": 3 / 3,
            "ACC-3": 4 / 3,
            "ACR": 4 / 6,
            "UVCTR": 2 / 3,
            "AVDU": 16 / 3,
            "ER": 1 / 3,
            NOVEL_CLICK_RATE: 2 / 3,
        }
    )
    assert all(ratio.estimate.low <= ratio.value <= ratio.estimate.high for ratio in found.values())


def test_users_without_an_exposure_do_not_count(log: ExposureLog) -> None:
    sums = online_sums(log.take(log.users == 0), 7)
    assert Resamples(7, seed=0, samples=50).ratio(sums["UVCTR"]).value == 1


def test_a_metric_of_nothing_is_no_number() -> None:
    nothing = Sums(np.zeros(4), np.zeros(4))
    assert np.isnan(Resamples(4, seed=0, samples=5).ratio(nothing).value)


def test_intervals_of_a_difference_are_of_the_same_users() -> None:
    rng = np.random.default_rng(1)
    clicks, shown = rng.integers(0, 5, 200).astype(float), np.full(200, 5.0)
    resamples = Resamples(200, seed=0)
    one, other = resamples.ratio(Sums(clicks + 1, shown)), resamples.ratio(Sums(clicks, shown))
    gap = one.minus(other)
    # Every user clicks a fifth more: whoever is drawn, the difference is the same.
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.2, 0.2), abs=1e-6)
    assert one.estimate.high - one.estimate.low > 0.01


TWO_USERS = log_of([1] * 10 + [3] * 4 + [5], clicked=[True, False] * 5 + [True, True, False, False] + [True])


def test_the_first_tenth_of_ten_is_one_and_of_four_is_one_and_of_one_is_none() -> None:
    scores = np.arange(15.0)
    assert np.flatnonzero(first_of_each(TWO_USERS, scores, 0.1)).tolist() == [9, 13]
    assert np.flatnonzero(first_of_each(TWO_USERS, -scores, 1 / 3)).tolist() == [0, 1, 2, 3, 10, 11]
    assert np.flatnonzero(first_of_all(TWO_USERS, scores, 0.1)).tolist() == [13, 14]


def test_what_a_method_knows_nothing_of_comes_last() -> None:
    scores = np.full(15, -np.inf)
    scores[[2, 12]] = 0.0
    assert np.flatnonzero(first_of_each(TWO_USERS, scores, 0.1)).tolist() == [2, 12]


def test_equal_scores_stand_in_one_order_for_every_ranking() -> None:
    same = [first_of_each(TWO_USERS, np.full(15, value), 0.5) for value in (0.0, 7.0)]
    np.testing.assert_array_equal(*same)


def test_pairs_are_those_of_one_user() -> None:
    assert Resamples(6, seed=0, samples=5).ratio(ordered_pairs(TWO_USERS, np.zeros(15), 6)).value == 0.5
    perfect = ordered_pairs(TWO_USERS, TWO_USERS.clicked.astype(float), 6)
    assert perfect.numerator.tolist() == perfect.denominator.tolist() == [0, 25, 0, 4, 0, 0]
    turned = ordered_pairs(TWO_USERS, -TWO_USERS.clicked.astype(float), 6)
    assert turned.numerator.sum() == 0


def test_periods_are_closed_below_and_open_above(log: ExposureLog) -> None:
    assert len(log.between(FROM, FROM + 90)) == 4
    assert len(log.between(FROM + 90, FROM + 101)) == 2
    moved = replace(log, times=log.times + 1)
    assert len(moved.between(FROM, FROM + 1)) == 0
