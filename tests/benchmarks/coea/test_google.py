from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.demands import Demands, click_lift
from benchmarks.coea.google import FittedGoogleV1, FittedGoogleV2, GoogleV1, GoogleV2
from benchmarks.coea.metrics import ranked
from benchmarks.coea.protocol import CategorySplit, Episodes
from serendipity.offline.coevolution.config import CoevolutionConfig, ExamplesConfig
from serendipity.offline.tuning.config import TinyLmConfig, TuningConfig
from tests.benchmarks.coea.worlds import catalogue, cyclists, histories

TUNING = TuningConfig(batch_size=32, epochs=12, learning_rate=1e-2, max_tokens=256)
TINY = CoevolutionConfig(
    tiny=TinyLmConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, merges=0, max_positions=256),
    examples=ExamplesConfig(min_clicks=3, max_relevance=600, recent_dropout=0.0),
    novelty=TUNING,
    relevance=TUNING.model_copy(update={"epochs": 6}),
)


@pytest.fixture(scope="module")
def world() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(80, 8, 20), catalogue(8))


@pytest.fixture(scope="module")
def v1(world: CategorySplit) -> FittedGoogleV1:
    return GoogleV1(TINY).fit(world, 0)


@pytest.fixture(scope="module")
def v2(world: CategorySplit) -> FittedGoogleV2:
    return GoogleV2(TINY).fit(world, 0)


def hit_rate(scores: np.ndarray, episodes: Episodes) -> float:
    top = ranked(scores, episodes, 1)[:, 0]
    return float(np.mean(episodes.targets[np.arange(len(top)), top]))


def test_best_of_many_names_what_users_click_next(world: CategorySplit, v1: FittedGoogleV1) -> None:
    assert hit_rate(v1.scores(world.test, {"samples": 40, "temperature": 1.0}), world.test) > 0.9


def test_a_chain_of_thought_ends_in_what_users_turn_to(world: CategorySplit, v2: FittedGoogleV2) -> None:
    assert hit_rate(v2.scores(world.test, {"chains": 2}), world.test) > 0.9


def test_a_list_holds_what_was_proposed_and_more_samples_make_it_longer(
    world: CategorySplit, v1: FittedGoogleV1
) -> None:
    few, many = (
        np.isfinite(v1.scores(world.test, {"samples": samples, "temperature": 2.0})).sum(axis=1) for samples in (2, 80)
    )

    assert few.max() <= 2
    assert few.min() >= 1
    assert many.mean() > few.mean()


def test_nothing_of_the_latest_categories_is_proposed(world: CategorySplit, v1: FittedGoogleV1) -> None:
    scores = v1.scores(world.test, {"samples": 80, "temperature": 2.0})

    assert not np.isfinite(scores[~world.test.candidates]).any()


def test_no_more_categories_are_scored_than_may_be_proposed(world: CategorySplit) -> None:
    brief = TINY.model_copy(
        update={
            "novelty": TUNING.model_copy(update={"epochs": 0.5}),
            "relevance": TUNING.model_copy(update={"epochs": 0.5}),
        }
    )
    fitted = GoogleV1(brief, proposable=2).fit(world, 0)

    scores = fitted.scores(world.test, {"samples": 80, "temperature": 10.0})

    assert np.isfinite(scores).sum(axis=1).max() <= 2


def test_users_with_the_same_latest_categories_share_a_list_whoever_is_asked_for(
    world: CategorySplit, v1: FittedGoogleV1, v2: FittedGoogleV2
) -> None:
    alone = Episodes.of(world.test.histories, world.test.users[5:6], world.test.targets[5:6], world.num_categories)
    fresh_v1 = FittedGoogleV1(v1._novelty, v1._relevance, v1._renderer, v1._proposable, v1._seed)
    fresh_v2 = FittedGoogleV2(v2._llm, v2._renderer, v2._step, v2._demands)

    setting = {"samples": 5, "temperature": 1.0, "chains": 2}
    for fitted, fresh in ((v1, fresh_v1), (v2, fresh_v2)):
        everyone = fitted.scores(world.test, setting)
        assert fresh.scores(alone, setting)[0] == pytest.approx(everyone[5], abs=1e-4)
        same = [row for row, recent in enumerate(world.test.recent) if recent == world.test.recent[5]]
        assert np.array_equal(everyone[same], np.tile(everyone[5], (len(same), 1)))


def test_users_without_history_are_answered(world: CategorySplit, v1: FittedGoogleV1, v2: FittedGoogleV2) -> None:
    none = histories([[]])
    nobody = Episodes.of(none, np.array([0]), np.zeros((1, 8), np.bool_), 8)

    assert np.isfinite(v1.scores(nobody, {"samples": 5, "temperature": 1.0})).any()
    assert np.isfinite(v2.scores(nobody, {"chains": 2})).all()


def test_a_seed_decides_training_and_samples(world: CategorySplit) -> None:
    brief = TINY.model_copy(
        update={
            "novelty": TUNING.model_copy(update={"epochs": 0.5}),
            "relevance": TUNING.model_copy(update={"epochs": 0.5}),
        }
    )
    setting = {"samples": 5, "temperature": 1.0}

    one, same, other = (GoogleV1(brief).fit(world, seed).scores(world.test, setting) for seed in (1, 1, 2))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_lift_is_one_where_categories_are_independent() -> None:
    clicked = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.bool_)

    lift = click_lift(clicked)

    assert lift[0, 1] == pytest.approx(1.0)
    assert lift[0, 2] == 0.0


def test_categories_of_the_same_users_are_one_demand_named_by_the_most_clicked() -> None:
    clicks = [[1, 2, 2, 3, 2, 2]] * 10 + [[4, 5, 6, 6, 6, 6]] * 10
    demands = Demands.of(CategorySplit.leave_last_out(histories(clicks), catalogue(6)), 2)

    assert demands.named_by.tolist() == [2, 2, 2, 6, 6, 6]
    assert demands.named == [2, 6]
    assert demands.chain((4, 1), 3) == (1, 2)
