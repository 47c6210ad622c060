from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerTimeout, TowerUnavailable
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.features import INPUT_NAMES, FeatureAssembler, LongHistory, TowerInputs
from tests.fixtures.small_world import DIM, MAX_INTERESTS, NOW, SmallWorld


def inputs(world: SmallWorld, n: int, interests: int = 0, first: int = 0) -> TowerInputs:
    """Users as they are stored, each with some nodes for interests."""
    assembler = FeatureAssembler.from_spec(world.tower)
    users = []
    for i, user_id in enumerate(world.user_ids[first : first + n], first):
        record = world.contents.users[user_id]
        long_history = LongHistory(
            np.array(record.long_categories, np.int32),
            np.array(record.long_counts, np.int32),
            np.array(record.long_last_times, np.int64),
        )
        vectors = world.contents.node_vectors[i : i + interests]
        profile = np.array(record.profile, np.int32)
        users.append(assembler.assemble(world.clicks(user_id), long_history, profile, vectors, NOW))
    return TowerInputs.stack(users)


async def test_it_runs_the_model_it_is_named_after(small_world: SmallWorld, local_tower: LocalTower) -> None:
    vectors = await local_tower.user_vectors(small_world.tower.model_name, inputs(small_world, 3), Deadline.after(60))
    assert local_tower.model_name == small_world.tower.model_name
    assert vectors.shape == (3, 2, DIM)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("interests", [1, 3, MAX_INTERESTS])
async def test_it_takes_as_many_interests_as_there_are_and_answers_as_the_training_did(
    small_world: SmallWorld, local_tower: LocalTower, interests: int
) -> None:
    fed = inputs(small_world, 5, interests)
    vectors = await local_tower.user_vectors(small_world.tower.model_name, fed, Deadline.after(60))
    assert vectors.shape == (5, 1 + interests, DIM)
    trained = torch.export.load(small_world.tower_path.with_suffix(".pt2")).module()
    arrays = fed.arrays()
    with torch.inference_mode():
        expected = trained(*(torch.from_numpy(arrays[name]) for name in INPUT_NAMES)).numpy()
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    # What the snapshot stores of a user is what the tower gives for the user alone.
    if interests == 1:
        alone = [read_vector(small_world, user_id) for user_id in small_world.user_ids[:5]]
        np.testing.assert_allclose(vectors[:, 0], alone, atol=0.02)


def read_vector(world: SmallWorld, user_id: str) -> NDArray[np.float32]:
    return np.frombuffer(world.contents.users[user_id].user_vector, "<f2").astype(np.float32)


async def test_a_user_is_answered_alike_alone_and_among_others(
    small_world: SmallWorld, local_tower: LocalTower
) -> None:
    together = await local_tower.user_vectors(
        small_world.tower.model_name, inputs(small_world, 4, 2), Deadline.after(60)
    )
    for i, user in enumerate(small_world.user_ids[:4]):
        alone = inputs(small_world, 1, 2, first=i)
        (vectors,) = await local_tower.user_vectors(small_world.tower.model_name, alone, Deadline.after(60))
        np.testing.assert_allclose(together[i], vectors, rtol=1e-5, atol=1e-5, err_msg=user)


async def test_another_training_is_refused(small_world: SmallWorld, local_tower: LocalTower) -> None:
    with pytest.raises(TowerUnavailable, match="this process has loaded user_tower_"):
        await local_tower.user_vectors("user_tower_ffffffffffffffff", inputs(small_world, 1), Deadline.after(60))


async def test_inputs_it_was_not_exported_for_are_a_tower_error(
    small_world: SmallWorld, local_tower: LocalTower
) -> None:
    good = inputs(small_world, 1)
    bad = TowerInputs(
        good.history_items,
        good.history_ages,
        good.long_categories,
        good.long_counts,
        good.long_ages,
        good.profile,
        np.zeros((1, MAX_INTERESTS, 3), np.float32),
    )
    with pytest.raises(TowerUnavailable, match="user_tower_"):
        await local_tower.user_vectors(small_world.tower.model_name, bad, Deadline.after(60))


async def test_no_time_left_is_a_timeout(small_world: SmallWorld, local_tower: LocalTower) -> None:
    with pytest.raises(TowerTimeout):
        await local_tower.user_vectors(small_world.tower.model_name, inputs(small_world, 60), Deadline.after(0))
    # The abandoned run does not get in the way of the next.
    vectors = await local_tower.user_vectors(small_world.tower.model_name, inputs(small_world, 1), Deadline.after(60))
    assert len(vectors) == 1


@pytest.mark.parametrize("content", [None, b"", b"no ONNX"])
def test_a_file_that_is_no_tower_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "user_tower.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TowerUnavailable, match=r"user_tower\.onnx: cannot be loaded .*expected a user tower as ONNX"):
        LocalTower(path)


def test_a_model_that_does_not_say_of_which_training_it_is_is_refused(small_world: SmallWorld, tmp_path: Path) -> None:
    model = onnx.load(small_world.tower_path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "user_tower.onnx")
    with pytest.raises(TowerUnavailable, match=r"user_tower\.onnx: cannot be loaded .*fingerprint"):
        LocalTower(tmp_path / "user_tower.onnx")


async def test_a_closed_tower_ends_its_thread(small_world: SmallWorld) -> None:
    tower = LocalTower(small_world.tower_path)
    await tower.close()
    with pytest.raises(RuntimeError):
        await tower.user_vectors(small_world.tower.model_name, inputs(small_world, 1), Deadline.after(60))
    await asyncio.sleep(0)
