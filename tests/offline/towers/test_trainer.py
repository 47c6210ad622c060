from collections.abc import Callable

import numpy as np
import pytest
import torch

from serendipity.offline.finite import DivergedError
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.dual_tower import DualTower
from serendipity.offline.towers.trainer import learning_rate_share, train
from tests.offline.towers.conftest import World, small_config


def run(
    world: World,
    config: TowersConfig,
    validate: Callable[[DualTower], float] | None = None,
    epochs: int | None = None,
) -> tuple[DualTower, int]:
    towers = world.towers(config)
    found = train(
        towers,
        world.prepared.fit,
        world.catalogue.item_categories,
        world.nodes,
        config,
        validate=validate,
        epochs=epochs,
    )
    return towers, found


def assert_equal(first: DualTower, second: DualTower) -> None:
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_lowers_the_loss_and_beats_chance(world: World, caplog: pytest.LogCaptureFixture) -> None:
    config = small_config(max_epochs=6, learning_rate=1e-2, patience=6)
    caplog.set_level("INFO", "serendipity")
    towers, _ = run(world, config, world.prepared.validation.score)
    losses = [float(record.getMessage().split()[3]) for record in caplog.records]
    assert losses[-1] < losses[0]
    recall = world.prepared.validation.recall(towers)
    held_out = world.prepared.validation.held_out
    assert recall["all@20"] > 2 * 20 / len(held_out.candidates)
    assert recall["novel@20"] > 20 / len(held_out.candidates)


def test_the_same_seed_trains_the_same_towers_and_another_does_not(world: World) -> None:
    config = small_config()
    first, _ = run(world, config, epochs=1)
    second, _ = run(world, config, epochs=1)
    assert_equal(first, second)
    other, _ = run(world, config.model_copy(update={"seed": 1}), epochs=1)
    assert not torch.equal(first.user.user_layer.weight, other.user.user_layer.weight)


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(world: World) -> None:
    config = small_config(max_epochs=9, patience=2)
    kept: list[torch.Tensor] = []
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9])

    def validate(towers: DualTower) -> float:
        kept.append(towers.item.gate_layer.weight.detach().clone())
        return next(scores)

    towers, found = run(world, config, validate)
    assert len(kept) == 4
    assert found == 2
    assert torch.equal(towers.item.gate_layer.weight, kept[1])


def test_rows_without_positives_are_refused(world: World) -> None:
    rows = world.config.rows.model_copy(update={"min_item_users": 10_000})
    with pytest.raises(LogsError, match="no later click on an item that"):
        run(world, world.config.model_copy(update={"rows": rows}), epochs=1)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    shares = [learning_rate_share(done) for done in np.linspace(0, 1, 101)]
    top = int(np.argmax(shares))
    assert 4 <= top <= 6
    assert np.all(np.diff(shares[: top + 1]) >= 0)
    assert np.all(np.diff(shares[top:]) <= 0)
    assert shares[-1] < 1e-6


def test_towers_that_diverge_stop_with_their_losses(world: World) -> None:
    config = small_config(learning_rate=1e39)
    with pytest.raises(DivergedError, match=r"^towers, epoch 1, step \d+: found click nan, contrast \S+, expected"):
        run(world, config, epochs=1)
