"""Trees that are fitted on exposures learn what was clicked of them, from features that were known before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.exposures.channel_scores import ChannelScores
from benchmarks.exposures.learned import ScoredLog, learned_scores
from benchmarks.exposures.log import ExposureLog
from serendipity.rank_features import FEATURE_NAMES
from tests.fixtures.exposures_slice import log_of

RATES = np.array([0.1, 0.9])
GRAPH = FEATURE_NAMES.index("graph_score")


def exposures(seed: int) -> ExposureLog:
    """2,000 exposures of two items, of which one is clicked nine times as often."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(2, size=2_000)
    return log_of(np.arange(2_000) // 10, rows=rows, clicked=rng.random(2_000) < RATES[rows])


def scored(log: ExposureLog, graph: np.ndarray) -> ScoredLog:
    features = np.zeros((len(log), len(FEATURE_NAMES)), np.float32)
    features[:, GRAPH] = graph
    return ScoredLog(log, ChannelScores(np.zeros(len(log)), features), exposures(seed=9))


def test_what_a_feature_tells_is_learned() -> None:
    learned, asked = (scored(log, log.rows) for log in (exposures(1), exposures(2)))
    found = learned_scores(learned, asked, with_rates=False)
    assert found[asked.log.rows == 1].min() > found[asked.log.rows == 0].max()


@pytest.mark.parametrize("with_rates", [False, True])
def test_the_click_rate_is_read_only_where_it_is_wanted(with_rates: bool) -> None:
    learned, asked = (scored(log, np.zeros(len(log))) for log in (exposures(1), exposures(2)))
    found = learned_scores(learned, asked, with_rates=with_rates)
    assert (len(np.unique(found)) > 1) == with_rates


def test_what_the_channel_did_not_score_comes_last_and_teaches_nothing() -> None:
    learned, asked = (scored(log, log.rows) for log in (exposures(1), exposures(2)))
    scores = np.where(np.arange(2_000) < 500, -np.inf, 0.0)
    some = replace(asked, scored=replace(asked.scored, scores=scores))
    found = learned_scores(learned, some, with_rates=False)
    assert np.isneginf(found[:500]).all()
    assert np.isfinite(found[500:]).all()
    turned = replace(learned.log, clicked=np.where(np.arange(2_000) < 500, ~learned.log.clicked, learned.log.clicked))
    taught = [
        learned_scores(
            replace(learned, log=log, scored=replace(learned.scored, scores=scores)), asked, with_rates=False
        )
        for log in (learned.log, turned)
    ]
    np.testing.assert_array_equal(*taught)
