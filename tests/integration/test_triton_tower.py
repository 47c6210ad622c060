"""The pipeline over a real tritonserver: the answers are those of the same tower in this process."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from google.protobuf import json_format

from benchmarks.wire import wire_to
from serendipity import layout, triton
from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerTimeout, TowerUnavailable
from serendipity.channel.recall.hydrate import hydrate
from serendipity.channel.recall.query import RecallQuery
from serendipity.channel.recall.recall import STORED_VECTORS, Channel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import open_snapshot
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.channel.tower.triton import TritonTower
from serendipity.features import TowerInputs
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import USER_TOWER, user_tower
from tests.fixtures.small_world import DIM, NOW, SmallWorld
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(triton_server: RunningTriton, small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name under which the small world's tower is loaded."""
    towers = tmp_path_factory.mktemp("towers")
    for suffix in (".pt2", ".onnx"):
        shutil.copy(small_world.tower_path.with_suffix(suffix), towers)
    shutil.copy(small_world.snapshot_dir / layout.ITEM_VECTORS, towers)
    (towers / "tower.json").write_text(json_format.MessageToJson(small_world.tower))
    name = deployment.place(USER_TOWER, towers, triton_server.models_dir)
    deployment.load(triton_server.grpc_url, user_tower(small_world.tower, DIM))
    return name


@pytest.fixture(scope="module")
def holder(small_world: SmallWorld) -> Iterator[SnapshotHolder]:
    opened = SnapshotHolder(open_snapshot(small_world.snapshot_dir))
    yield opened
    opened.close()


@pytest.fixture
async def tower(triton_server: RunningTriton) -> AsyncIterator[TritonTower]:
    opened = TritonTower(triton_server.url)
    yield opened
    await opened.close()


def query(user_id: str) -> RecallQuery:
    return RecallQuery(user_id=user_id, count=20, now=NOW)


def inputs_of(holder: SnapshotHolder, user_ids: list[str]) -> TowerInputs:
    with holder.acquire() as lease:
        users = [hydrate(lease, query(user_id), UserState(), ChannelSettings()) for user_id in user_ids]
    return TowerInputs.stack([user.inputs for user in users])


async def test_triton_gives_the_vectors_of_the_exported_tower(
    small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower, served: str
) -> None:
    # More users than one batch of the model takes.
    inputs = inputs_of(holder, [*small_world.user_ids, *small_world.user_ids[:20], "nobody"])
    local = LocalTower(small_world.tower_path)
    expected = await local.user_vectors(served, inputs, Deadline.after(60))
    found = await tower.user_vectors(served, inputs, Deadline.after(60))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    await local.close()


async def test_the_channel_answers_over_triton_as_it_does_in_process(
    small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower, served: str
) -> None:
    local = LocalTower(small_world.tower_path)
    over_triton, in_process = (Channel(holder, each, clock=lambda: NOW) for each in (tower, local))
    for user_id in [*small_world.user_ids[:10], "nobody"]:
        a, b = [await channel.recall(query(user_id), Deadline.after(60)) for channel in (over_triton, in_process)]
        assert a.response.item_ids == b.response.item_ids
        np.testing.assert_allclose(a.response.scores, b.response.scores, atol=1e-5)
        assert a.response.versions.user_tower == served
        assert not a.response.degraded
    over_triton.close()
    in_process.close()
    await local.close()


async def test_many_requests_at_once_are_answered_each_with_its_own_vectors(
    small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower, served: str
) -> None:
    inputs = [inputs_of(holder, [user_id]) for user_id in small_world.user_ids]
    together = await asyncio.gather(*(tower.user_vectors(served, each, Deadline.after(60)) for each in inputs))
    for each, vectors in zip(inputs, together, strict=True):
        alone = await tower.user_vectors(served, each, Deadline.after(60))
        np.testing.assert_allclose(vectors, alone, atol=1e-5)


async def test_a_model_that_is_not_loaded_is_unavailable(
    small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower
) -> None:
    with pytest.raises(TowerUnavailable, match="user_tower_ffffffffffffffff"):
        await tower.user_vectors(
            "user_tower_ffffffffffffffff", inputs_of(holder, small_world.user_ids[:1]), Deadline.after(60)
        )


async def test_a_server_that_stands_still_is_a_timeout_and_the_next_call_is_answered(
    triton_server: RunningTriton, small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower, served: str
) -> None:
    inputs = inputs_of(holder, small_world.user_ids[:1])
    await tower.user_vectors(served, inputs, Deadline.after(60))
    with triton_server.suspended(), pytest.raises(TowerTimeout):
        # Too hurried to count against the server: the next caller is not held back.
        await tower.user_vectors(served, inputs, Deadline.after(0.009))
    assert len(await tower.user_vectors(served, inputs, Deadline.after(60))) == 1


async def test_triton_survives_callers_that_give_up_and_the_patient_beside_them_are_answered(
    triton_server: RunningTriton, small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower, served: str
) -> None:
    inputs = inputs_of(holder, small_world.user_ids[:1])
    expected = await tower.user_vectors(served, inputs, Deadline.after(60))

    async def hurried(seconds: float) -> bool:
        try:
            await tower.user_vectors(served, inputs, Deadline.after(seconds))
        except (TowerTimeout, TowerUnavailable):
            return True
        return False

    async def cancelled(turns: int) -> None:
        task = asyncio.ensure_future(tower.user_vectors(served, inputs, Deadline.after(60)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    given_up = 0
    for i in range(100):
        given_up += sum(await asyncio.gather(*(hurried(1e-4 * (1 + (i + k) % 8)) for k in range(4))))
        await cancelled(i % 8)
        if i % 10 == 0:
            found = await patient(tower, served, inputs)
            np.testing.assert_allclose(found, expected, atol=1e-5)
    # How many is the machine's affair: where the loop is late, answers are there before it looks at the time.
    assert given_up
    triton_server.server.check()
    np.testing.assert_allclose(await patient(tower, served, inputs), expected, atol=1e-5)


async def patient(tower: TritonTower, served: str, inputs: TowerInputs) -> np.ndarray:
    """Ask until fewer calls run on that nobody waits for. Nothing else may keep a patient caller from its answer."""
    while True:
        try:
            return await tower.user_vectors(served, inputs, Deadline.after(60))
        except TowerUnavailable as error:
            if "calls run on" not in str(error):
                raise
            await asyncio.sleep(0.001)


CALLER = """
import asyncio, pickle, sys
from serendipity.channel.deadline import Deadline
from serendipity.channel.tower.triton import TritonTower

async def main(url, model, inputs):
    tower = TritonTower(url)
    async def ask_for_ever():
        while True:
            await tower.user_vectors(model, inputs, Deadline.after(60))
            print("answered", flush=True)
    await asyncio.gather(*(ask_for_ever() for _ in range(8)))

asyncio.run(main(*pickle.load(sys.stdin.buffer)))
"""


async def test_triton_survives_a_client_that_is_killed_in_flight(
    triton_server: RunningTriton, small_world: SmallWorld, holder: SnapshotHolder, served: str
) -> None:
    inputs = inputs_of(holder, small_world.user_ids[:1])
    for _ in range(2):
        caller = subprocess.Popen([sys.executable, "-c", CALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert caller.stdin
        assert caller.stdout
        with caller:
            pickle.dump((triton_server.url, served, inputs), caller.stdin)
            caller.stdin.close()
            for _ in range(20):
                assert await asyncio.to_thread(caller.stdout.readline) == b"answered\n"
            caller.kill()
    tower = TritonTower(triton_server.url)
    assert len(await tower.user_vectors(served, inputs, Deadline.after(60))) == 1
    await tower.close()
    triton_server.server.check()


async def test_a_connection_cut_without_a_word_heals(
    triton_server: RunningTriton,
    small_world: SmallWorld,
    holder: SnapshotHolder,
    served: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton, "LEAST_SECONDS", 0.2)
    inputs = inputs_of(holder, small_world.user_ids[:1])
    async with wire_to(f"http://{triton_server.url}") as (address, wire):
        tower = TritonTower(address)
        assert len(await tower.user_vectors(served, inputs, Deadline.after(60))) == 1
        wire.cut()
        with pytest.raises(TowerTimeout):
            await tower.user_vectors(served, inputs, Deadline.after(0.05))
        assert len(await tower.user_vectors(served, inputs, Deadline.after(60))) == 1
        await tower.close()


async def test_an_unloaded_model_degrades_the_answer_until_it_is_back(
    triton_server: RunningTriton, small_world: SmallWorld, holder: SnapshotHolder, tower: TritonTower, served: str
) -> None:
    channel = Channel(holder, tower, clock=lambda: NOW)
    control = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    control.unload_model(served)
    while control.is_model_ready(served):
        await asyncio.sleep(0)
    degraded = await channel.recall(query("user-00"), Deadline.after(60))
    deployment.load(triton_server.grpc_url, user_tower(small_world.tower, DIM))
    control.close()
    restored = await channel.recall(query("user-00"), Deadline.after(60))
    channel.close()
    assert degraded.response.versions.user_tower == STORED_VECTORS
    assert len(degraded.response.item_ids) == 20
    assert degraded.response.degraded_reasons[0].startswith("user tower: ")
    assert restored.response.versions.user_tower == served
    assert not restored.response.degraded
