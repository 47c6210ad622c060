"""How much InterestGPT is heard: chosen on some users, judged on others, never nothing."""

from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.distillation.likelihoods import LEAST_WEIGHT, WEIGHTS, Judged, weigh

USERS, CATEGORIES = 40, 30


def world(seed: int, *, told: bool) -> Judged:
    """Users who entered one category each: the reasoner knows nothing of it, the likelihoods all of it or nothing."""
    rng = np.random.default_rng(seed)
    shape = (USERS, CATEGORIES + 1)
    entered = np.zeros(shape, np.bool_)
    entered[np.arange(USERS), 1 + rng.integers(CATEGORIES, size=USERS)] = True
    probabilities = rng.uniform(0.01, 0.2, shape).astype(np.float32)
    likelihoods = rng.normal(size=shape).astype(np.float32)
    if told:
        likelihoods += np.where(entered, 9, 0)
    likelihoods[:, 0], probabilities[:, 0] = np.nan, 0
    never = np.ones(shape, np.bool_)
    never[:, 0] = False
    return Judged(probabilities, likelihoods, rng.integers(99, size=CATEGORIES + 1), never, entered)


def test_likelihoods_that_know_something_are_heard() -> None:
    weight, report = weigh(world(0, told=True), world(1, told=True))
    assert weight > LEAST_WEIGHT
    assert weight == pytest.approx(report.best_weight)
    assert report.users == USERS
    assert report.likelihood == 1
    assert report.mix > report.reasoner + report.margin


def test_likelihoods_that_would_do_harm_keep_the_floor_and_the_report_says_so() -> None:
    judged = world(0, told=True)
    likelihoods = -judged.log_likelihoods
    against = Judged(judged.probabilities, likelihoods, judged.popularity, judged.never, judged.entered)
    weight, report = weigh(against, against)
    assert (weight, report.best_weight, report.floor) == (LEAST_WEIGHT, 0, pytest.approx(LEAST_WEIGHT))
    assert report.likelihood < report.reasoner


def test_nobody_to_choose_it_for_leaves_the_floor() -> None:
    nobody = Judged(*(part[:0] if part.ndim == 2 else part for part in vars(world(0, told=True)).values()))
    weight, report = weigh(nobody, nobody)
    assert (weight, report.users, report.mix) == (LEAST_WEIGHT, 0, 0)


def test_what_a_user_clicked_before_takes_no_place() -> None:
    judged = world(2, told=False)
    judged.never[:, 1:16] = False
    judged.entered[:, 1:16] = False
    ranked = judged.recalls(np.arange(CATEGORIES + 1)[None] * judged.never)
    by_hand = [bool(row[21:].any()) / max(1, row.sum()) for row in judged.entered]
    assert ranked.tolist() == by_hand


def test_the_floor_is_one_of_the_weights_that_are_tried() -> None:
    assert WEIGHTS[:2] == (0.0, LEAST_WEIGHT)
    assert list(WEIGHTS) == sorted(WEIGHTS)
