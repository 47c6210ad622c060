from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.coea.item_sequences import ItemSequences
from benchmarks.coea.metrics import ranked
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.recbole_models import Architecture, SequentialConfig, SequentialModel
from benchmarks.coea.sequential import FittedSequential, Sequential
from tests.benchmarks.coea.worlds import catalogue, cyclists, histories

ARCHITECTURES: tuple[Architecture, ...] = ("GRU4Rec", "SASRec", "BERT4Rec")
SMALL = SequentialConfig(
    window=10,
    hidden_size=16,
    inner_size=16,
    num_layers=1,
    targets=3,
    batch_size=32,
    learning_rate=1e-2,
    steps=200,
    check_every=50,
    patience=4,
    held_out=20,
    dropout=0.0,
)


def split() -> CategorySplit:
    return CategorySplit.leave_last_out(cyclists(), catalogue(8))


def fitted(architecture: Architecture, config: SequentialConfig = SMALL, seed: int = 0) -> FittedSequential:
    return Sequential(architecture, config).fit(split(), seed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_learns_which_category_follows_which(architecture: Architecture) -> None:
    world = split()
    # A bidirectional model learns of the next click from few of its masks.
    model = fitted(architecture, SMALL.model_copy(update={"steps": 500 if architecture == "BERT4Rec" else 200}))

    for pooling in (0.0, 1.0):
        top = ranked(model.scores(world.test, {"pooling": pooling}), world.test, 1)[:, 0]
        assert np.mean(world.test.targets[np.arange(len(top)), top]) > 0.9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_decides_everything(architecture: Architecture) -> None:
    brief = SMALL.model_copy(update={"steps": 5, "check_every": 5})
    world = split()

    one, same, other = (fitted(architecture, brief, seed).scores(world.test, {"pooling": 0.0}) for seed in (1, 1, 2))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_user_is_answered_alone_as_among_others(architecture: Architecture) -> None:
    world = split()
    model = fitted(architecture, SMALL.model_copy(update={"steps": 5, "check_every": 5}))
    users = world.test.users[7:8]
    alone = Episodes.of(world.test.histories, users, world.test.targets[7:8], world.num_categories)

    found = model.scores(world.test, {"pooling": 0.0})[7:8]

    assert model.scores(alone, {"pooling": 0.0}) == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_users_without_history_are_offered_what_is_clicked_most(architecture: Architecture) -> None:
    clicks = [[3, 3, 3, 2, 2, 1]] * 10 + [[]]
    world = CategorySplit.leave_last_out(histories(clicks), catalogue(4))
    model = Sequential(architecture, SMALL.model_copy(update={"steps": 5, "check_every": 5})).fit(world, 0)
    nobody = Episodes.of(world.training, np.array([10]), np.zeros((1, 4), np.bool_), 4)

    scores = model.scores(nobody, {"pooling": 0.0})

    assert np.argsort(-scores[0])[:2].tolist() == [2, 1]
    assert np.isfinite(scores).all()


def test_training_ends_with_the_steps_that_are_allowed_and_sooner_without_progress() -> None:
    rng = np.random.default_rng(0)
    noise = ItemSequences(rng.integers(1, 200, 2_000), np.arange(0, 2_001, 20))

    most = SequentialModel("GRU4Rec", 200, SMALL.model_copy(update={"steps": 7}), 0).fit(noise)
    hopeless = SMALL.model_copy(update={"steps": 200, "check_every": 2, "patience": 1, "learning_rate": 1e-9})
    stopped = SequentialModel("GRU4Rec", 200, hopeless, 0).fit(noise)

    assert most.steps == 7
    assert stopped.steps < 20


def test_histories_too_short_to_learn_from_leave_the_model_as_it_was_made() -> None:
    report = SequentialModel("SASRec", 3, SMALL, 0).fit(ItemSequences(np.array([1, 2]), np.array([0, 1, 2])))

    assert report.steps == 0


def test_users_of_two_clicks_are_learned_from_though_none_is_held_out() -> None:
    pairs = ItemSequences(np.tile([1, 2], 30), np.arange(0, 61, 2))
    model = SequentialModel("GRU4Rec", 3, SMALL.model_copy(update={"steps": 100}), 0)

    report = model.fit(pairs)

    assert report.steps == 100
    assert model.log_probabilities(ItemSequences(np.array([1]), np.array([0, 1]))).argmax() == 2


def test_a_model_is_not_asked_for_users_without_clicks() -> None:
    model = SequentialModel("SASRec", 3, SMALL, 0)

    with pytest.raises(ValueError, match="found no clicks of user 1, expected at least 1"):
        model.log_probabilities(ItemSequences(np.array([1]), np.array([0, 1, 1])))


def test_a_later_click_changes_nothing_of_what_a_causal_model_learns_from_earlier_ones() -> None:
    model = SequentialModel("SASRec", 9, SMALL, 0)
    scores = model.log_probabilities(ItemSequences(np.array([1, 2, 3]), np.array([0, 3])))
    # The same prefix, asked for in the middle of a longer window.
    network = model._model.eval()
    with torch.inference_mode():
        longer = {"item_id_list": torch.tensor([[1, 2, 3, 7, 8]]), "item_length": torch.tensor([[3, 5]])}
        vectors = network.forward(longer["item_id_list"], longer["item_length"])
        logits = vectors @ network.item_embedding.weight.T

    found = torch.log_softmax(logits[:, 1:], 1)[0].numpy()
    assert found == pytest.approx(scores[0, 1:], abs=1e-5)


def test_importing_the_library_leaves_anomaly_detection_as_it_was() -> None:
    SequentialModel("SASRec", 3, SMALL, 0)

    assert not torch.is_anomaly_enabled()
