"""InterestGPT under the real tritonserver, asked by the near-line client."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from serendipity.channel.errors import ModelRefused, ModelUnavailable
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt, TritonTextEncoder
from serendipity.interests import model
from serendipity.interests.prompt import UserFacts, render
from serendipity.offline import encoder
from serendipity.offline.distillation.likelihoods import log_likelihoods
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.language_models.config import LocalConfig
from serendipity.offline.language_models.language_model import Prompt, Sampling
from serendipity.offline.language_models.local import LocalModel
from serendipity.offline.tuning.base_model import load_model
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import AS_CHECKED_IN, INTEREST_GPT, TEXT_ENCODER, interest_gpt
from serendipity.v1 import records_pb2
from tests.fixtures.hostile_texts import HOSTILE_TEXTS
from tests.fixtures.tiny_interest_gpt import CATEGORIES, example_prompts, make_tiny_interest_gpt
from tests.integration.conftest import RunningTriton
from tests.integration.held_model import holdable

pytestmark = pytest.mark.integration

TIMEOUT = 60.0


@dataclass(frozen=True)
class Served:
    """A model directory and the spec under which it is loaded."""

    directory: Path
    spec: records_pb2.InterestGptSpec


@pytest.fixture(scope="module")
def served(triton_server: RunningTriton, tmp_path_factory: pytest.TempPathFactory) -> Served:
    directory = tmp_path_factory.mktemp("tuned") / "interest_gpt"
    spec = make_tiny_interest_gpt(directory)
    serve(triton_server, directory, spec)
    return Served(directory, spec)


def serve(triton_server: RunningTriton, directory: Path, spec: records_pb2.InterestGptSpec) -> None:
    assert deployment.place(INTEREST_GPT, directory, triton_server.models_dir) == spec.model_name
    deployment.load(triton_server.grpc_url, interest_gpt(spec))


@pytest.fixture
async def client(triton_server: RunningTriton) -> AsyncIterator[InterestGpt]:
    connection = InterestGpt(triton_server.url)
    yield connection
    await connection.close()


@pytest.fixture
def raw(triton_server: RunningTriton) -> Iterator[Any]:
    connection = triton_grpc.InferenceServerClient(triton_server.grpc_url)
    yield connection
    connection.close()


def infer(raw: Any, name: str, cells: Sequence[bytes]) -> list[str]:
    """Ask for answers, past the client."""
    tensor = triton_grpc.InferInput(model.PROMPT, [len(cells), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(cells, np.object_).reshape(-1, 1))
    return [text.decode() for text in raw.infer(name, [tensor]).as_numpy(model.ANSWER)[:, 0]]


def ready_models(raw: Any) -> set[str]:
    return {entry.name for entry in raw.get_model_repository_index().models if entry.state == "READY"}


async def test_answers_are_those_of_the_weights_asked_here(served: Served, client: InterestGpt) -> None:
    prompts, most = example_prompts(), served.spec.max_new_tokens
    local = LocalModel.open(LocalConfig(path=served.directory, device="cpu"))
    expected = local.complete([Prompt(text) for text in prompts], Sampling(max_new_tokens=most))
    found = await client.answers(served.spec, prompts, TIMEOUT)
    assert [(one.text, one.prompt_tokens) for one in found] == [(one.text, one.prompt_tokens) for one in expected]


async def test_likelihoods_are_those_that_the_builder_weighs(served: Served, client: InterestGpt) -> None:
    prompts = example_prompts()
    found = await client.log_likelihoods(served.spec, prompts, [CATEGORIES] * len(prompts), TIMEOUT)
    base = load_model(served.directory, "tiny", "compact")
    wanted = np.ones((len(prompts), len(CATEGORIES)), np.bool_)
    expected = log_likelihoods(base, CATEGORIES, prompts, wanted, served.spec.max_prompt_tokens)
    np.testing.assert_allclose([one.values for one in found], expected, atol=1e-4)
    assert [one.prompt_tokens for one in found] == [len(base.tokenizer(text)["input_ids"]) for text in prompts]


async def test_likelihoods_of_a_batch_are_those_of_its_prompts_alone_in_the_candidates_order(
    served: Served, client: InterestGpt
) -> None:
    prompts, candidates = example_prompts()[:3], [CATEGORIES[:1], CATEGORIES[::-1], CATEGORIES[1:]]
    together = await client.log_likelihoods(served.spec, prompts, candidates, TIMEOUT)
    for prompt, names, one in zip(prompts, candidates, together, strict=True):
        (alone,) = await client.log_likelihoods(served.spec, [prompt], [CATEGORIES], TIMEOUT)
        expected = [alone.values[CATEGORIES.index(name)] for name in names]
        np.testing.assert_allclose(one.values, expected, atol=1e-4)


async def test_an_unknown_candidate_is_refused_and_fails_nobody_elses_call(served: Served, client: InterestGpt) -> None:
    calls = [client.log_likelihoods(served.spec, ["tea"], [names], TIMEOUT) for names in (["BEEF"], ["UNICORNS"])]
    found, refused, written = await asyncio.gather(
        *calls, client.answers(served.spec, ["tea"], TIMEOUT), return_exceptions=True
    )
    assert isinstance(found, list)
    assert isinstance(written, list)
    assert isinstance(refused, ModelRefused)
    assert "candidates: found 'UNICORNS', expected a category of the model" in str(refused)


async def test_answers_of_a_batch_are_those_of_its_prompts_alone(served: Served, client: InterestGpt) -> None:
    prompts = example_prompts()[:4]
    together = await client.answers(served.spec, prompts, TIMEOUT)
    alone = [(await client.answers(served.spec, [prompt], TIMEOUT))[0] for prompt in prompts]
    assert together == alone


async def test_calls_that_come_together_are_answered_in_few_executions_each_with_its_own(
    triton_server: RunningTriton, client: InterestGpt, tmp_path: Path
) -> None:
    directory = tmp_path / "interest_gpt"
    spec = make_tiny_interest_gpt(directory, seed=3)
    name = deployment.place(INTEREST_GPT, directory, triton_server.models_dir)
    held = holdable(triton_server, name, tmp_path)
    deployment.load(triton_server.grpc_url, interest_gpt(spec))
    prompts = example_prompts()
    expected = await client.answers(spec, prompts, TIMEOUT)
    many = InterestGpt(triton_server.url, max_batches_in_flight=16)
    with held.held():
        first = asyncio.create_task(client.answers(spec, prompts[:1], TIMEOUT))
        await asyncio.to_thread(held.wait_until_it_runs)
        calls = [asyncio.create_task(many.answers(spec, [prompt], TIMEOUT)) for prompt in prompts]
        await asyncio.to_thread(held.wait_until_waiting, len(prompts))
    assert await first == expected[:1]
    assert [(await call)[0] for call in calls] == expected
    await many.close()
    # One run for all of them, and perhaps one more for the call that came last of all.
    assert sum(held.runs()) == 1 + len(prompts)
    assert len(held.runs()) <= 1 + 2


async def test_texts_of_hostile_users_are_scored_like_others(served: Served, client: InterestGpt) -> None:
    prompts = [render(UserFacts(searches=[text]), "compact") for text in HOSTILE_TEXTS]
    found = await client.log_likelihoods(served.spec, prompts, [CATEGORIES] * len(prompts), TIMEOUT)
    np.testing.assert_allclose([np.exp(one.values).sum() for one in found], 1, atol=1e-3)


async def test_prompts_of_any_length_and_kind_are_answered_within_bounds(served: Served, client: InterestGpt) -> None:
    prompts = ["x" * 10_000, "\x00\x01", "<eos> tea", "🍋 \u202eليمون"]
    answers = await client.answers(served.spec, prompts, TIMEOUT)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert answers[0].prompt_tokens == served.spec.max_prompt_tokens


async def test_an_empty_prompt_is_refused_and_fails_nobody_elses_call(served: Served, client: InterestGpt) -> None:
    calls = [client.answers(served.spec, [text], TIMEOUT) for text in ("tea", "", "tea")]
    first, empty, last = await asyncio.gather(*calls, return_exceptions=True)
    assert first == last
    assert isinstance(first, list)
    assert isinstance(empty, ModelRefused)
    assert "prompt 0: found no text, expected a user message" in str(empty)


def test_bytes_that_are_no_text_are_refused(served: Served, raw: Any) -> None:
    with pytest.raises(triton_grpc.InferenceServerException, match="prompt 1: 'utf-8' codec can't decode byte 0xff"):
        infer(raw, served.spec.model_name, [b"tea", b"\xff"])
    assert len(infer(raw, served.spec.model_name, [b"tea"])) == 1


def test_a_batch_larger_than_the_models_is_refused(served: Served, raw: Any) -> None:
    with pytest.raises(triton_grpc.InferenceServerException, match=r"batch-size must be <= 16"):
        infer(raw, served.spec.model_name, [b"tea"] * 17)


async def test_a_caller_that_gives_up_leaves_the_model_serving(
    triton_server: RunningTriton, served: Served, client: InterestGpt
) -> None:
    # The connection is there before, so that what is given up has been sent.
    await client.answers(served.spec, ["tea"], TIMEOUT)
    with triton_server.suspended(), pytest.raises(ModelUnavailable):
        await client.answers(served.spec, example_prompts(), 0.1)
    assert len(await client.answers(served.spec, ["tea"], TIMEOUT)) == 1


async def test_a_model_that_is_not_loaded_is_worth_another_try(client: InterestGpt) -> None:
    away = records_pb2.InterestGptSpec(model_name="interest_gpt_" + "0" * 16, max_batch=4)
    with pytest.raises(ModelUnavailable, match="interest_gpt_0000000000000000"):
        await client.answers(away, ["tea"], TIMEOUT)


@pytest.mark.parametrize("field", ["fingerprint", "base"])
def test_a_model_that_reports_another_origin_than_the_snapshot_pins_is_refused(
    triton_server: RunningTriton, served: Served, field: str
) -> None:
    pinned = records_pb2.InterestGptSpec()
    pinned.CopyFrom(served.spec)
    setattr(pinned, field, "another")
    with pytest.raises(deployment.DeployError, match=f"{field}: found .*, expected another"):
        deployment.load(triton_server.grpc_url, interest_gpt(pinned))


async def test_loading_again_changes_no_answer(
    triton_server: RunningTriton, served: Served, client: InterestGpt
) -> None:
    before = await client.answers(served.spec, example_prompts()[:2], TIMEOUT)
    # Triton loads again what has changed since.
    (triton_server.models_dir / served.spec.model_name / "config.pbtxt").touch()
    serve(triton_server, served.directory, served.spec)
    assert await client.answers(served.spec, example_prompts()[:2], TIMEOUT) == before


async def test_a_new_model_serves_beside_the_old_one_until_the_old_is_unloaded(
    triton_server: RunningTriton, served: Served, client: InterestGpt, raw: Any, tmp_path: Path
) -> None:
    newer = make_tiny_interest_gpt(tmp_path / "newer", seed=2, style="chat", max_new_tokens=80)
    serve(triton_server, tmp_path / "newer", newer)
    chat, compact = await asyncio.gather(
        client.answers(newer, example_prompts("chat")[:1], TIMEOUT),
        client.answers(served.spec, example_prompts()[:1], TIMEOUT),
    )
    assert chat[0].prompt_tokens > compact[0].prompt_tokens
    ready = ready_models(raw)
    assert {newer.model_name, served.spec.model_name} <= ready
    assert deployment.unload_unused(triton_server.grpc_url, ready - {newer.model_name}) == [newer.model_name]
    assert len(await client.answers(served.spec, ["tea"], TIMEOUT)) == 1


async def test_weights_of_another_model_are_refused_and_the_old_one_keeps_serving(
    triton_server: RunningTriton, served: Served, client: InterestGpt, tmp_path: Path
) -> None:
    before = await client.answers(served.spec, ["tea"], TIMEOUT)
    other = make_tiny_interest_gpt(tmp_path / "other", seed=1)
    placed = triton_server.models_dir / served.spec.model_name / "1" / "model" / "model.safetensors"
    shutil.copy(tmp_path / "other" / "model.safetensors", placed)
    with pytest.raises(
        deployment.DeployError, match=f"fingerprint: found {other.fingerprint}, expected {served.spec.fingerprint}"
    ):
        deployment.load(triton_server.grpc_url, interest_gpt(served.spec))
    assert await client.answers(served.spec, ["tea"], TIMEOUT) == before
    # Placing again repairs what lies there.
    deployment.place(INTEREST_GPT, served.directory, triton_server.models_dir)
    assert model.fingerprint(placed.parent) == served.spec.fingerprint


async def test_names_are_embedded_near_line_as_the_builders_embed_them(triton_server: RunningTriton) -> None:
    deployment.place(TEXT_ENCODER, encoder.default_path(), triton_server.models_dir)
    deployment.load(triton_server.grpc_url, TEXT_ENCODER.trained(encoder.default_path(), AS_CHECKED_IN))
    texts = [f"garden tool {n}" for n in range(70)] + ["crème", ""]
    client = TritonTextEncoder(triton_server.url, timeout=TIMEOUT)
    try:
        vectors = await client.encode(texts)
    finally:
        await client.close()
    np.testing.assert_allclose(vectors, TextEncoder(encoder.default_path()).encode(texts), atol=1e-5)
