from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coea.gru4rec import Gru4RecConfig, Gru4RecTrial, log_probabilities, train
from benchmarks.coea.item_sequences import ItemSequences
from benchmarks.coea.metrics import category_hit, mean, ranked
from benchmarks.coea.protocol import CategorySplit
from tests.benchmarks.coea.worlds import catalogue, cyclists

CONFIG = Gru4RecConfig(dim=16, window=10, batch=16, negatives=8, learning_rate=2e-2, check_every=20, max_steps=200)


def test_who_goes_round_the_categories_is_foretold() -> None:
    split = CategorySplit.leave_last_out(cyclists(num_users=30), catalogue(8))

    scores = Gru4RecTrial(CONFIG.model_copy(update={"held_out": 10})).run(split, 0)

    # Items of this world repeat, so that clicked ones stay candidates.
    top = ranked(scores["test"].astype(np.float32), split.test, 1)
    assert mean(category_hit(top, split.test.reachable, 1)) > 0.9


def test_training_ends_when_held_out_clicks_get_no_likelier() -> None:
    rng = np.random.default_rng(0)
    noise = ItemSequences(rng.integers(1, 6, 600), np.arange(0, 601, 12))
    looks: list[float] = []

    train(noise, 5, CONFIG.model_copy(update={"patience": 1, "max_steps": 10_000}), 0, on_look=looks.append)

    assert len(looks) < 20
    assert looks[-1] <= max(looks[:-1])


def test_probabilities_sum_to_one_and_padding_has_none() -> None:
    users = ItemSequences(np.array([1, 2, 3]), np.array([0, 2, 3]))
    model = train(ItemSequences(np.array([1, 2, 3, 1, 2, 3]), np.array([0, 3, 6])), 3, CONFIG, 0)

    found = log_probabilities(model, users, CONFIG)

    assert np.isneginf(found[:, 0]).all()
    assert np.exp(found).sum(axis=1) == pytest.approx(1)


def test_a_seed_decides_everything() -> None:
    users = ItemSequences(np.tile([1, 2, 3, 4], 10), np.arange(0, 41, 4))
    few = CONFIG.model_copy(update={"max_steps": 20})

    one, same, other = (log_probabilities(train(users, 4, few, seed), users, few) for seed in (1, 1, 2))

    assert (one == same).all()
    assert (one != other).any()
