"""The repository's models under the real tritonserver."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton_grpc
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from serendipity import features
from serendipity.offline.export import export_onnx
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import USER_TOWER, Serving, user_tower
from serendipity.tools.serving.repository import MODEL_REPOSITORY, template
from serendipity.v1 import records_pb2
from tests.fixtures import example_tower
from tests.fixtures.example_tower import Sizes, Training, random_inputs, with_unknown_item, write_training
from tests.integration.conftest import RunningTriton
from tests.integration.held_model import HeldModel, holdable

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return write_training(tmp_path_factory.mktemp("training") / "towers")


@pytest.fixture(scope="module")
def held_training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return write_training(tmp_path_factory.mktemp("held_training") / "towers", seed=4)


@pytest.fixture(scope="module")
def served(triton_server: RunningTriton, training: Training) -> str:
    """The name under which `training` is loaded."""
    return serve(triton_server, training)


@pytest.fixture(scope="module")
def held(triton_server: RunningTriton, held_training: Training, tmp_path_factory: pytest.TempPathFactory) -> HeldModel:
    """`held_training`, loaded so that its runs can be held."""
    model = holdable(triton_server, place(triton_server, held_training), tmp_path_factory.mktemp("held"))
    deployment.load(triton_server.grpc_url, user_tower(held_training.spec, held_training.sizes.dim))
    return model


@pytest.fixture
def client(triton_server: RunningTriton) -> Iterator[Any]:
    connection = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    yield connection
    connection.close()


def place(triton_server: RunningTriton, training: Training) -> str:
    """Place a training to run once, which loads faster than twice; return the model's name."""
    return deployment.place(USER_TOWER, training.directory, triton_server.models_dir, Serving(instances=1))


def serve(triton_server: RunningTriton, training: Training) -> str:
    """Place and load a training; return the model's name."""
    name = place(triton_server, training)
    deployment.load(triton_server.grpc_url, user_tower(training.spec, training.sizes.dim))
    return name


def tensors(inputs: features.TowerInputs) -> list[Any]:
    result = []
    for name, value in inputs.arrays().items():
        tensor = triton_grpc.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        result.append(tensor)
    return result


def infer(client: Any, name: str, inputs: features.TowerInputs) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = client.infer(name, tensors(inputs)).as_numpy(features.OUTPUT_NAME)
    return vectors


def send(client: Any, name: str, batches: Sequence[features.TowerInputs], **options: Any) -> list[Future[Any]]:
    """Send all at once; each answer is its vectors, or the exception it failed with."""
    answers: list[Future[Any]] = [Future() for _ in batches]
    for answer, inputs in zip(answers, batches, strict=True):
        client.async_infer(
            name,
            tensors(inputs),
            lambda result, error, answer=answer: answer.set_result(error or result.as_numpy(features.OUTPUT_NAME)),
            **options,
        )
    return answers


def results(answers: Sequence[Future[Any]]) -> list[Any]:
    return [answer.result(timeout=60) for answer in answers]


def infer_together(client: Any, held: HeldModel, batches: Sequence[features.TowerInputs]) -> list[Any]:
    """Let all wait together behind one more request, which is the first batch again; give their results."""
    with held.held():
        first = send(client, held.name, batches[:1])
        held.wait_until_it_runs()
        answers = send(client, held.name, batches)
        held.wait_until_waiting(len(batches))
    results(first)
    return results(answers)


@pytest.mark.parametrize("users", [1, 3, 64])
def test_the_tower_answers_as_it_does_locally(
    triton_server: RunningTriton, client: Any, training: Training, served: str, users: int
) -> None:
    inputs = random_inputs(training.sizes, users, seed=users)
    np.testing.assert_allclose(infer(client, served, inputs), training.user_vectors(inputs), atol=1e-5)


def test_a_tower_runs_with_open_dimensions_too(triton_server: RunningTriton, client: Any, training: Training) -> None:
    shutil.copytree(MODEL_REPOSITORY / "user_tower", triton_server.models_dir / "user_tower")
    configuration = triton_server.models_dir / "user_tower" / "config.pbtxt"
    configuration.write_text(text_format.MessageToString(template("user_tower")))
    shutil.copy(training.directory / "user_tower.onnx", triton_server.models_dir / "user_tower" / "1")
    client.load_model("user_tower")
    inputs = random_inputs(training.sizes, 2)
    np.testing.assert_allclose(infer(client, "user_tower", inputs), training.user_vectors(inputs), atol=1e-5)
    # The open dimensions let any shape through to the program, which knows its own.
    narrow = replace(inputs, profile=inputs.profile[:, :1].copy())
    with pytest.raises(triton_grpc.InferenceServerException, match=r"INVALID_ARGUMENT.*profile"):
        infer(client, "user_tower", narrow)


def test_a_tower_without_profile_fields_is_served(triton_server: RunningTriton, client: Any, tmp_path: Path) -> None:
    training = write_training(tmp_path / "towers", sizes=Sizes(profile_fields=0))
    name = serve(triton_server, training)
    inputs = random_inputs(training.sizes, 2)
    assert inputs.profile.shape == (2, 1)
    np.testing.assert_allclose(infer(client, name, inputs), training.user_vectors(inputs), atol=1e-5)


def test_requests_that_come_together_are_answered_in_one_pass_each_with_its_own(
    triton_server: RunningTriton, client: Any, held_training: Training, held: HeldModel
) -> None:
    batches = [random_inputs(held_training.sizes, users=1 + i % 2, seed=i) for i in range(16)]
    answers = infer_together(client, held, batches)
    for inputs, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer, held_training.user_vectors(inputs), atol=1e-5)
    # One run for all of them, and perhaps one more for the request that came last of all.
    assert sum(held.runs()) == 1 + 16
    assert len(held.runs()) <= 1 + 2


def test_an_unknown_item_fails_its_own_request_only(
    triton_server: RunningTriton, client: Any, held_training: Training, held: HeldModel
) -> None:
    batches = [random_inputs(held_training.sizes, users=1, seed=i) for i in range(6)]
    batches[3] = with_unknown_item(batches[3])
    answers = infer_together(client, held, batches)
    assert isinstance(answers[3], triton_grpc.InferenceServerException)
    assert [answer.shape for i, answer in enumerate(answers) if i != 3] == [(1, 5, 5)] * 5
    # All of them in one run, save perhaps the one that came last of all.
    assert max(held.runs()) >= 5


def test_users_with_different_numbers_of_interests_are_answered_together(
    triton_server: RunningTriton, client: Any, held_training: Training, held: HeldModel
) -> None:
    batches = [random_inputs(held_training.sizes, users=1, seed=i) for i in range(8)]
    batches = [replace(inputs, interests=inputs.interests[:, : 1 + i % 4]) for i, inputs in enumerate(batches)]
    for inputs, answer in zip(batches, infer_together(client, held, batches), strict=True):
        asked = 1 + inputs.interests.shape[1]
        assert answer.shape[1] >= asked
        np.testing.assert_allclose(answer[:, :asked], held_training.user_vectors(inputs), atol=1e-5)
    assert len(held.runs()) <= 1 + 2


def test_a_wrong_shape_is_refused_with_what_was_expected(
    triton_server: RunningTriton, client: Any, training: Training, served: str
) -> None:
    inputs = random_inputs(training.sizes, 1)
    longer = replace(inputs, history_items=np.zeros((1, 11), np.int32))
    with pytest.raises(triton_grpc.InferenceServerException, match=r"history_items.* Expected \[-1,10\], got \[1,11\]"):
        infer(client, served, longer)


def test_a_full_queue_refuses_at_once(
    triton_server: RunningTriton, client: Any, held_training: Training, held: HeldModel
) -> None:
    override = model_config_pb2.ModelConfig()
    path = triton_server.models_dir / held.name / "config.pbtxt"
    original = path.read_text()
    text_format.Parse(original, override)
    override.max_batch_size = 1
    del override.model_warmup[:]
    policy = override.dynamic_batching.default_queue_policy
    policy.max_queue_size, policy.default_timeout_microseconds = 2, 60_000_000
    path.write_text(text_format.MessageToString(override))
    requests = [random_inputs(held_training.sizes, 1)] * 24
    try:
        client.load_model(held.name)
        with held.held():
            answers = send(client, held.name, requests)
            # While no run ends, nothing but a refusal is an answer.
            wait(answers, timeout=60, return_when=FIRST_COMPLETED)
        refused = [str(answer) for answer in results(answers) if isinstance(answer, Exception)]
        assert 0 < len(refused) < len(requests)
        assert all("Exceeds maximum queue size" in message for message in refused)
        # A request that says how long it may wait, in microseconds, is dropped once it has waited that long.
        with held.held():
            first = send(client, held.name, requests[:1])
            held.wait_until_it_runs()
            answers = send(client, held.name, requests, timeout=1)
            # The first answer shows that the queue is full of those who wait, or that one of them has been dropped.
            wait(answers, timeout=60, return_when=FIRST_COMPLETED)
        assert not isinstance(results(first)[0], Exception)
        assert any("Request timeout expired" in str(answer) for answer in results(answers))
    finally:
        path.write_text(original)
        client.load_model(held.name)


def test_weights_of_another_training_are_refused_and_the_old_tower_keeps_serving(
    triton_server: RunningTriton, client: Any, training: Training, served: str, tmp_path: Path
) -> None:
    other = write_training(tmp_path / "towers", seed=1)
    weights = triton_server.models_dir / served / "1" / "user_tower.onnx"
    shutil.copy(other.directory / "user_tower.onnx", weights)
    found, expected = other.spec.fingerprint, training.spec.fingerprint
    with pytest.raises(deployment.DeployError, match=f"fingerprint: found {found}, expected {expected}"):
        deployment.load(triton_server.grpc_url, user_tower(training.spec, training.sizes.dim))
    inputs = random_inputs(training.sizes, 1)
    np.testing.assert_allclose(infer(client, served, inputs), training.user_vectors(inputs), atol=1e-5)
    # Placing again repairs what lies there.
    assert serve(triton_server, training) == served


def test_a_model_that_reports_another_fingerprint_is_refused(
    triton_server: RunningTriton, training: Training, served: str
) -> None:
    pinned = records_pb2.TowerSpec()
    pinned.CopyFrom(training.spec)
    pinned.fingerprint = "0" * 16
    with pytest.raises(deployment.DeployError, match=f"found {training.spec.fingerprint}, expected {'0' * 16}"):
        deployment.load(triton_server.grpc_url, user_tower(pinned, training.sizes.dim))


def test_a_tower_of_another_dimension_or_that_overflows_is_refused(
    triton_server: RunningTriton, training: Training, served: str, tmp_path: Path
) -> None:
    with pytest.raises(deployment.DeployError, match=r"found shape \(1, 2, 5\), expected \(1, 2, 6\)"):
        deployment.load(triton_server.grpc_url, user_tower(training.spec, 6))
    broken = write_training(tmp_path / "towers", seed=2)
    # Finite, as an export asks, and too large for the arithmetic of float32.
    torch.nn.init.constant_(broken.tower.enter.weight, 3e38)
    with pytest.raises(deployment.DeployError, match="not finite"):
        serve(triton_server, exported_again(broken))


def exported_again(training: Training) -> Training:
    """Export the tower as it is now, without the checks that export_program makes."""
    path = training.directory / "user_tower.pt2"
    example = example_tower.tensors(random_inputs(training.sizes, 2))
    batch = torch.export.Dim("batch", max=64)
    torch.export.save(torch.export.export(training.tower, example, dynamic_shapes=[{0: batch}] * len(example)), path)
    training.spec.fingerprint = features.tower_fingerprint(path)
    export_onnx(training.tower, example, path.with_suffix(".onnx"), training.spec.fingerprint)
    training.spec.model_name = f"user_tower_{training.spec.fingerprint}"
    (training.directory / "tower.json").write_text(json_format.MessageToJson(training.spec))
    return training


def test_a_new_training_is_loaded_while_the_old_one_serves(
    triton_server: RunningTriton, client: Any, training: Training, served: str, tmp_path: Path
) -> None:
    newer = write_training(tmp_path / "towers", seed=3)
    inputs = random_inputs(training.sizes, 1)
    expected = training.user_vectors(inputs)
    loaded = threading.Event()
    answers: list[NDArray[np.float32]] = []
    failures: list[Exception] = []

    def ask() -> None:
        connection = triton_grpc.InferenceServerClient(triton_server.grpc_url)
        while not loaded.is_set():
            try:
                answers.append(infer(connection, served, inputs))
            except triton_grpc.InferenceServerException as error:
                failures.append(error)
        connection.close()

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        newer_name = serve(triton_server, newer)
    finally:
        loaded.set()
        caller.join()
    assert failures == []
    assert answers
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    np.testing.assert_allclose(infer(client, newer_name, inputs), newer.user_vectors(inputs), atol=1e-5)
    assert deployment.unload_unused(
        triton_server.grpc_url, {served, "user_tower"} | set(loaded_names(client)) - {newer_name}
    ) == [newer_name]
    assert newer_name not in loaded_names(client)
    assert served in loaded_names(client)


def loaded_names(client: Any) -> list[str]:
    return [model.name for model in client.get_model_repository_index().models if model.state == "READY"]
