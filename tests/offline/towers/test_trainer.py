from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from serendipity.offline.finite import DivergedError
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.dual_tower import DualTower
from serendipity.offline.towers.trainer import CHECKPOINT, Training, learning_rate_share, train
from tests.offline.towers.conftest import World, small_config


class Killed(BaseException):
    """Stands for the signal: nothing in the trainer may catch it."""


def run(
    world: World,
    checkpoints: Path,
    config: TowersConfig,
    validate: Callable[[DualTower], float] | None = None,
    epochs: int | None = None,
) -> tuple[DualTower, Training]:
    towers = world.towers(config)
    found = train(
        towers,
        world.prepared.fit,
        world.catalogue.item_categories,
        world.nodes,
        config,
        checkpoints=checkpoints,
        validate=validate,
        epochs=epochs,
    )
    return towers, found


def assert_equal(first: DualTower, second: DualTower) -> None:
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_lowers_the_loss_and_beats_chance(world: World, tmp_path: Path) -> None:
    config = small_config(max_epochs=6, learning_rate=1e-2, patience=6)
    towers, found = run(world, tmp_path, config, world.prepared.validation.score)
    assert found.epochs[-1].click < found.epochs[0].click
    recall = world.prepared.validation.recall(towers)
    held_out = world.prepared.validation.held_out
    assert recall["all@20"] > 2 * 20 / len(held_out.candidates)
    assert recall["novel@20"] > 20 / len(held_out.candidates)


def test_the_same_seed_trains_the_same_towers_and_another_does_not(world: World, tmp_path: Path) -> None:
    config = small_config()
    first, _ = run(world, tmp_path / "a", config, epochs=1)
    second, _ = run(world, tmp_path / "b", config, epochs=1)
    assert_equal(first, second)
    other, _ = run(world, tmp_path / "c", config.model_copy(update={"seed": 1}), epochs=1)
    assert not torch.equal(first.user.user_layer.weight, other.user.user_layer.weight)


def test_a_killed_training_resumes_to_the_same_towers(world: World, tmp_path: Path) -> None:
    config = small_config(max_epochs=4, patience=4)
    scores = iter([0.1, 0.4, 0.2, 0.3])
    uninterrupted, whole = run(world, tmp_path / "whole", config, lambda _: next(scores))

    def killed_in_third(_: DualTower) -> float:
        score = next(scores, None)
        if score is None:
            raise Killed
        return score

    scores = iter([0.1, 0.4])
    with pytest.raises(Killed):
        run(world, tmp_path / "killed", config, killed_in_third)
    scores = iter([0.2, 0.3])
    resumed, found = run(world, tmp_path / "killed", config, killed_in_third)
    assert found == whole
    assert found.best_epoch == 2
    assert_equal(uninterrupted, resumed)


def test_a_finished_training_is_not_trained_again(world: World, tmp_path: Path) -> None:
    config = small_config()
    first, found = run(world, tmp_path, config, epochs=2)
    stamp = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    again, repeated = run(world, tmp_path, config, epochs=2)
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == stamp
    assert repeated == found
    assert_equal(first, again)


def test_checkpoints_of_another_run_or_half_written_are_not_resumed_from(world: World, tmp_path: Path) -> None:
    config = small_config()
    fresh, _ = run(world, tmp_path / "fresh", config, epochs=1)
    run(world, tmp_path / "other", config.model_copy(update={"seed": 9}), epochs=1)
    from_other, _ = run(world, tmp_path / "other", config, epochs=1)
    assert_equal(fresh, from_other)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / CHECKPOINT).write_bytes((tmp_path / "fresh" / CHECKPOINT).read_bytes()[:1000])
    from_broken, _ = run(world, tmp_path / "broken", config, epochs=1)
    assert_equal(fresh, from_broken)


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(world: World, tmp_path: Path) -> None:
    config = small_config(max_epochs=9, patience=2)
    kept: list[torch.Tensor] = []
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9])

    def validate(towers: DualTower) -> float:
        kept.append(towers.item.gate_layer.weight.detach().clone())
        return next(scores)

    towers, found = run(world, tmp_path, config, validate)
    assert [epoch.score for epoch in found.epochs] == [0.2, 0.5, 0.4, 0.3]
    assert found.best_epoch == 2
    assert torch.equal(towers.item.gate_layer.weight, kept[1])


def test_rows_without_positives_are_refused(world: World, tmp_path: Path) -> None:
    rows = world.config.rows.model_copy(update={"min_item_users": 10_000})
    with pytest.raises(LogsError, match="no later click on an item that"):
        run(world, tmp_path, world.config.model_copy(update={"rows": rows}), epochs=1)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    shares = [learning_rate_share(done) for done in np.linspace(0, 1, 101)]
    top = int(np.argmax(shares))
    assert 4 <= top <= 6
    assert np.all(np.diff(shares[: top + 1]) >= 0)
    assert np.all(np.diff(shares[top:]) <= 0)
    assert shares[-1] < 1e-6


def test_towers_that_diverge_stop_with_their_losses_and_leave_no_checkpoint(world: World, tmp_path: Path) -> None:
    config = small_config(learning_rate=1e39)
    with pytest.raises(DivergedError, match=r"^towers, epoch 1, step \d+: found click nan, contrast \S+, expected"):
        run(world, tmp_path, config, epochs=1)
    assert not (tmp_path / CHECKPOINT).exists()
