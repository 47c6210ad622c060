"""The group encoder under the real tritonserver, asked by the near-line client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray

from serendipity.channel.errors import ModelRefused, ModelUnavailable
from serendipity.channel.nearline.group_job import GroupEncoder
from serendipity.groups import model
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import GROUP_ENCODER, group_encoder
from serendipity.v1 import records_pb2
from tests.fixtures.tiny_coevolution import NUM_ITEMS, make_tiny_group_encoder
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration

TIMEOUT = 60.0
Rows = tuple[NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True)
class Served:
    """A group model's directory and the spec under which its encoder is loaded."""

    directory: Path
    spec: records_pb2.GroupSpec

    def in_process(self, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        program = torch.export.load(self.directory / model.GROUP_ENCODER).module()
        csids, groups = program(*map(torch.from_numpy, rows))
        return csids.numpy(), groups.numpy()[:, 0]


@pytest.fixture(scope="module")
def served(triton_server: RunningTriton, tmp_path_factory: pytest.TempPathFactory) -> Served:
    directory = tmp_path_factory.mktemp("trained") / "groups"
    spec = make_tiny_group_encoder(directory)
    assert deployment.place(GROUP_ENCODER, directory, triton_server.models_dir) == spec.model_name
    deployment.load(triton_server.grpc_url, group_encoder(spec))
    return Served(directory, spec)


@pytest.fixture
async def client(triton_server: RunningTriton) -> AsyncIterator[GroupEncoder]:
    connection = GroupEncoder(triton_server.url)
    yield connection
    await connection.close()


def histories(users: int, seed: int = 0) -> Rows:
    """Histories of every length, zeros in front."""
    generator = np.random.default_rng(seed)
    sequences = generator.integers(1, NUM_ITEMS + 1, (users, 6))
    for row in range(users):
        sequences[row, : row % 7] = 0
    return sequences, generator.integers(0, 3, (users, 2)).astype(np.int32)


@pytest.mark.parametrize("users", [1, 8, 29])
async def test_groups_are_those_of_the_program_in_process(served: Served, client: GroupEncoder, users: int) -> None:
    rows = histories(users, seed=users)
    csids, groups = await client.assign(served.spec, *rows, TIMEOUT)
    expected_csids, expected_groups = served.in_process(rows)
    np.testing.assert_array_equal(csids, expected_csids)
    np.testing.assert_array_equal(groups, expected_groups)
    assert (csids.dtype, groups.dtype) == (np.int32, np.int32)


async def test_a_users_group_does_not_depend_on_who_is_asked_about_with_them(
    served: Served, client: GroupEncoder
) -> None:
    sequences, profiles = histories(8)
    csids, groups = await client.assign(served.spec, sequences, profiles, TIMEOUT)
    assert len(set(groups.tolist())) > 1
    for row in range(8):
        one = slice(row, row + 1)
        csid, group = await client.assign(served.spec, sequences[one], profiles[one], TIMEOUT)
        np.testing.assert_array_equal(csid, csids[one])
        np.testing.assert_array_equal(group, groups[one])


async def test_nobody_needs_no_call(served: Served) -> None:
    nowhere = GroupEncoder("127.0.0.1:1")
    csids, groups = await nowhere.assign(served.spec, np.empty((0, 6), np.int64), np.empty((0, 2), np.int32), TIMEOUT)
    assert (csids.shape, groups.shape) == ((0, 3), (0,))


@pytest.mark.parametrize("item", [NUM_ITEMS + 1, -1])
async def test_an_unknown_item_fails_its_own_request_only(served: Served, client: GroupEncoder, item: int) -> None:
    sequences, profiles = histories(1)
    unknown = np.full_like(sequences, item)
    calls = [client.assign(served.spec, rows, profiles, TIMEOUT) for rows in (sequences, unknown, sequences)]
    first, refused, last = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(refused, ModelRefused)
    assert "INVALID_ARGUMENT" in str(refused)
    for answer in (first, last):
        assert isinstance(answer, tuple)
        np.testing.assert_array_equal(answer[0], served.in_process((sequences, profiles))[0])


async def test_histories_of_another_length_are_refused(served: Served, client: GroupEncoder) -> None:
    sequences, profiles = histories(2)
    with pytest.raises(ModelRefused, match=r"sequence.*Expected \[-1,6\]"):
        await client.assign(served.spec, sequences[:, :5], profiles, TIMEOUT)
    with pytest.raises(ModelRefused, match="profile"):
        await client.assign(served.spec, sequences, np.zeros((2, 3), np.int32), TIMEOUT)


async def test_a_model_that_is_not_loaded_or_a_server_that_is_away_is_worth_another_try(
    served: Served, client: GroupEncoder
) -> None:
    away = records_pb2.GroupSpec(model_name="group_encoder_" + "0" * 16, max_batch=4)
    with pytest.raises(ModelUnavailable, match="group_encoder_0000000000000000"):
        await client.assign(away, *histories(1), TIMEOUT)
    nowhere = GroupEncoder("127.0.0.1:1")
    with pytest.raises(ModelUnavailable):
        await nowhere.assign(served.spec, *histories(1), 5.0)
    await nowhere.close()


async def test_an_answer_outside_what_the_spec_says_is_none(served: Served, client: GroupEncoder) -> None:
    spec = records_pb2.GroupSpec()
    spec.CopyFrom(served.spec)
    spec.codebook_size = 1
    with pytest.raises(ModelUnavailable, match=r"csid: found \d, expected int32 \[B, 3\] of 0 … 0"):
        await client.assign(spec, *histories(8), TIMEOUT)


def test_another_fingerprint_than_the_snapshot_pins_is_refused(triton_server: RunningTriton, served: Served) -> None:
    pinned = records_pb2.GroupSpec()
    pinned.CopyFrom(served.spec)
    pinned.fingerprint = "another"
    with pytest.raises(deployment.DeployError, match=r"fingerprint: found .*, expected another"):
        deployment.load(triton_server.grpc_url, group_encoder(pinned))


def test_a_program_that_is_not_the_one_of_the_configuration_is_refused(
    triton_server: RunningTriton, tmp_path: Path
) -> None:
    spec = make_tiny_group_encoder(tmp_path / "groups", seed=1)
    deployment.place(GROUP_ENCODER, tmp_path / "groups", triton_server.models_dir)
    program = triton_server.models_dir / spec.model_name / "1" / model.GROUP_ENCODER
    with program.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(deployment.DeployError, match=f"fingerprint: found .*, expected {spec.fingerprint}"):
        deployment.load(triton_server.grpc_url, group_encoder(spec))


def test_encoders_that_no_snapshot_pins_are_unloaded(
    triton_server: RunningTriton, served: Served, tmp_path: Path
) -> None:
    spec = make_tiny_group_encoder(tmp_path / "groups", seed=2)
    deployment.place(GROUP_ENCODER, tmp_path / "groups", triton_server.models_dir)
    deployment.load(triton_server.grpc_url, group_encoder(spec))
    raw = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    ready = {entry.name for entry in raw.get_model_repository_index().models if entry.state == "READY"}
    raw.close()
    assert {spec.model_name, served.spec.model_name} <= ready
    assert deployment.unload_unused(triton_server.grpc_url, ready - {spec.model_name}) == [spec.model_name]
