from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerTimeout, TowerUnavailable
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.features import FeatureAssembler, LongHistory, TowerInputs
from tests.fixtures.small_world import DIM, INTEREST_DIM, MAX_INTERESTS, NOW, SmallWorld


def inputs(world: SmallWorld, n: int, interest_dim: int = INTEREST_DIM) -> TowerInputs:
    assembler = FeatureAssembler.from_spec(world.tower)
    no_interests = np.empty((0, INTEREST_DIM), np.float32)
    profile = assembler.encode_profile({})
    users = [
        assembler.assemble(world.clicks(user_id), LongHistory.empty(), profile, no_interests, NOW)
        for user_id in world.user_ids[:n]
    ]
    return TowerInputs.stack(users)


async def test_it_runs_the_model_it_is_named_after(small_world: SmallWorld, local_tower: LocalTower) -> None:
    vectors = await local_tower.user_vectors(small_world.tower.model_name, inputs(small_world, 3), Deadline.after(60))
    assert vectors.shape == (3, 1 + MAX_INTERESTS, DIM)
    stored = [small_world.contents.users[user].user_vector for user in small_world.user_ids[:3]]
    assert all(np.frombuffer(vector, "<f2").shape == (DIM,) for vector in stored)


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


@pytest.mark.parametrize("content", [None, b"", b"no program"])
def test_a_file_that_is_no_tower_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "user_tower.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TowerUnavailable, match=r"user_tower\.pt2: cannot be loaded"):
        LocalTower(path)


async def test_a_closed_tower_ends_its_thread(small_world: SmallWorld) -> None:
    tower = LocalTower(small_world.tower_path)
    await tower.close()
    with pytest.raises(RuntimeError):
        await tower.user_vectors(small_world.tower.model_name, inputs(small_world, 1), Deadline.after(60))
    await asyncio.sleep(0)
