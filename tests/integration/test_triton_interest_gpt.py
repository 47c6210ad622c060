"""InterestGPT under the real tritonserver, asked by the near-line client."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from transformers import AutoModelForCausalLM, AutoTokenizer

from serendipity.channel.errors import ModelRefused, ModelUnavailable
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt, TritonTextEncoder
from serendipity.interests import model
from serendipity.interests.answer import answer_schema, read_answer
from serendipity.interests.constraint import JsonConstraint
from serendipity.interests.prompt import CategoryFact, UserFacts, render
from serendipity.offline import encoder
from serendipity.offline.encoder import TextEncoder
from serendipity.offline.language_models.config import LocalConfig
from serendipity.offline.language_models.language_model import Prompt, Sampling
from serendipity.offline.language_models.local import LocalModel
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
    """Ask without saying whether answers are to be constrained."""
    tensor = triton_grpc.InferInput(model.PROMPT, [len(cells), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(cells, np.object_).reshape(-1, 1))
    return [text.decode() for text in raw.infer(name, [tensor]).as_numpy(model.ANSWER)[:, 0]]


def ready_models(raw: Any) -> set[str]:
    return {entry.name for entry in raw.get_model_repository_index().models if entry.state == "READY"}


async def test_every_constrained_answer_can_be_read_even_of_random_weights(served: Served, client: InterestGpt) -> None:
    prompts = [
        render(UserFacts(searches=[word], recent=[CategoryFact("BEEF", n, n)]), "compact")
        for word in ("lemon", "grill", "crème brûlée", "steak")
        for n in range(1, 7)
    ]
    answers = await client.answers(served.spec, prompts, TIMEOUT)
    assert len(answers) == 24
    for answer in answers:
        proposals = read_answer(answer.text)
        assert len(proposals) == 1
        assert json.loads(answer.text)["interests"][0]["category"] in CATEGORIES


async def test_constraint_is_the_default_and_can_be_left_off(served: Served, client: InterestGpt, raw: Any) -> None:
    (prompt, *_) = example_prompts()
    (constrained,) = await client.answers(served.spec, [prompt], TIMEOUT)
    (free,) = await client.answers(served.spec, [prompt], TIMEOUT, constrained=False)
    assert infer(raw, served.spec.model_name, [prompt.encode()]) == [constrained.text]
    assert free.text != constrained.text
    assert free.prompt_tokens == constrained.prompt_tokens


async def test_answers_are_those_of_the_weights_asked_here(served: Served, client: InterestGpt) -> None:
    prompts, most = example_prompts(), served.spec.max_new_tokens
    local = LocalModel.open(LocalConfig(path=served.directory, device="cpu"))
    free = local.complete([Prompt(text) for text in prompts], Sampling(max_new_tokens=most))
    found = await client.answers(served.spec, prompts, TIMEOUT, constrained=False)
    assert [(one.text, one.prompt_tokens) for one in found] == [(one.text, one.prompt_tokens) for one in free]

    tokenizer = AutoTokenizer.from_pretrained(served.directory, local_files_only=True)
    weights = AutoModelForCausalLM.from_pretrained(served.directory, local_files_only=True).eval()
    eos, size = tokenizer.eos_token_id, len(weights.get_output_embeddings().weight)
    schema = answer_schema(CATEGORIES, served.spec.num_interests)
    constraint = JsonConstraint(tokenizer, schema, vocab_size=size, eos_token_ids=[eos])
    for text, one in zip(prompts, await client.answers(served.spec, prompts, TIMEOUT), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        processors = [constraint.decoding([True])]
        written = weights.generate(ids, do_sample=False, max_new_tokens=most, logits_processor=processors)
        answer = written[0, ids.shape[1] :].tolist()
        kept = answer[: answer.index(eos)] if eos in answer else answer
        expected = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert (one.text, one.prompt_tokens) == (expected, ids.shape[1])


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


async def test_texts_of_hostile_users_are_answered_like_others(served: Served, client: InterestGpt) -> None:
    prompts = [render(UserFacts(searches=[text]), "compact") for text in HOSTILE_TEXTS]
    for answer in await client.answers(served.spec, prompts, TIMEOUT):
        assert json.loads(answer.text)["interests"][0]["category"] in CATEGORIES


async def test_prompts_of_any_length_and_kind_are_answered_within_bounds(served: Served, client: InterestGpt) -> None:
    prompts = ["x" * 10_000, "\x00\x01", "<eos> tea", "🍋 \u202eليمون"]
    answers = await client.answers(served.spec, prompts, TIMEOUT)
    assert all(isinstance(answer, Answer) and read_answer(answer.text) for answer in answers)
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
    np.testing.assert_allclose(vectors, TextEncoder.from_path(encoder.default_path()).encode(texts), atol=1e-5)
