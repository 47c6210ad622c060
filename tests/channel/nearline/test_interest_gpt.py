"""The near-line Triton clients against real gRPC servers: ones that answer, hang, refuse, and answer wrongly."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

from serendipity.channel.errors import ChannelError, ModelRefused, ModelUnavailable
from serendipity.channel.nearline.interest_gpt import Answer, InterestGpt, TritonTextEncoder
from serendipity.interests.model import (
    ANSWER,
    CANDIDATES,
    COMPLETION_TOKENS,
    LOG_LIKELIHOODS,
    PROMPT,
    PROMPT_TOKENS,
)
from serendipity.v1 import records_pb2
from tests.fixtures.triton_script import HTTP_STATUSES, Script, Step, listening, nothing, output, serving, texts_of

SPEC = records_pb2.InterestGptSpec(model_name="interest_gpt_0123456789abcdef", max_batch=4, max_new_tokens=64)


def shouted(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """Answers that tell whose they are: the prompt in capitals, its length, one token."""
    texts = texts_of(request)
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
    output(response, ANSWER, np.array([[text.upper().encode()] for text in texts], np.object_))
    output(response, PROMPT_TOKENS, np.array([[len(text)] for text in texts], np.int32))
    output(response, COMPLETION_TOKENS, np.ones((len(texts), 1), np.int32))
    return response


def measured(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """Embeddings that tell whose they are: a text's length, and one."""
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
    output(response, "embeddings", np.array([[len(text), 1] for text in texts_of(request)], np.float32))
    return response


@asynccontextmanager
async def interest_gpt(*steps: Step, together: int = 1, **options: int) -> AsyncIterator[tuple[InterestGpt, Script]]:
    async with serving(*steps, together=together) as (url, script):
        client = InterestGpt(url, **options)
        try:
            yield client, script
        finally:
            script.released.set()
            await client.close()


@asynccontextmanager
async def text_encoder(*steps: Step, **options: Any) -> AsyncIterator[tuple[TritonTextEncoder, Script]]:
    async with serving(*steps) as (url, script):
        client = TritonTextEncoder(url, **options)
        try:
            yield client, script
        finally:
            script.released.set()
            await client.close()


async def test_prompts_are_asked_in_batches_and_answers_keep_their_order() -> None:
    prompts = [f"user {i} crème" for i in range(10)]
    async with interest_gpt(shouted) as (client, script):
        answers = await client.answers(SPEC, prompts, 10.0)
    assert answers == [Answer(text.upper(), len(text), 1) for text in prompts]
    assert sorted(len(texts_of(request)) for request in script.requests) == [2, 4, 4]
    for request in script.requests:
        assert request.model_name == SPEC.model_name
        assert [(tensor.name, tensor.datatype) for tensor in request.inputs] == [(PROMPT, "BYTES")]
        assert 0 < request.parameters["timeout"].int64_param <= 10_000_000


def lengths(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """Likelihoods that tell whose they are: the lengths of the candidates' names, negative."""
    lists = [json.loads(cell) for cell in deserialize_bytes_tensor(request.raw_input_contents[1])]
    return likelihoods(*[json.dumps([-len(name) for name in names]) for names in lists])(request)


Answering = Callable[[service_pb2.ModelInferRequest], service_pb2.ModelInferResponse]


def likelihoods(*cells: str) -> Answering:
    def step(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
        response = nothing(request)
        output(response, LOG_LIKELIHOODS, np.array([[cell.encode()] for cell in cells], np.object_))
        output(response, PROMPT_TOKENS, np.array([[len(text)] for text in texts_of(request)], np.int32))
        return response

    return step


async def test_candidates_are_asked_about_in_batches_and_keep_their_order() -> None:
    prompts = [f"user {i}" for i in range(6)]
    candidates = [["crème", "tea"][: 1 + i % 2] for i in range(6)]
    async with interest_gpt(lengths) as (client, script):
        found = await client.log_likelihoods(SPEC, prompts, candidates, 10.0)
    assert [one.values.tolist() for one in found] == [[-5.0, -3.0][: 1 + i % 2] for i in range(6)]
    assert [one.prompt_tokens for one in found] == [6] * 6
    assert sorted(len(texts_of(request)) for request in script.requests) == [2, 4]
    for request in script.requests:
        assert [tensor.name for tensor in request.inputs] == [PROMPT, CANDIDATES]
        assert [tensor.name for tensor in request.outputs] == [LOG_LIKELIHOODS, PROMPT_TOKENS]


@pytest.mark.parametrize(
    "cell", ["[-1.0]", "[-1.0, NaN]", '["a", "b"]', "[[-1.0, -2.0]]", "{}", "no JSON", "[" * 9_999]
)
async def test_likelihoods_that_are_none_are_an_error_of_the_tree(cell: str) -> None:
    async with interest_gpt(likelihoods(cell)) as (client, _):
        with pytest.raises(ModelUnavailable, match=r"log_likelihoods: found .* expected a JSON list of 2 numbers"):
            await client.log_likelihoods(SPEC, ["user"], [["tea", "bread"]], 10.0)


async def test_no_prompts_need_no_call() -> None:
    async with interest_gpt(shouted) as (client, script):
        assert await client.answers(SPEC, [], 10.0) == []
    assert script.requests == []


@pytest.mark.parametrize("most", [1, 2])
async def test_batches_in_flight_are_bounded_over_all_calls(most: int) -> None:
    async with interest_gpt(shouted, together=most, max_batches_in_flight=most) as (client, script):
        await asyncio.gather(*(client.answers(SPEC, ["user"] * 8, 10.0) for _ in range(4)))
    assert len(script.requests) == 8
    assert script.most_in_flight == most


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
async def test_what_may_pass_is_worth_another_try(status: grpc.StatusCode) -> None:
    async with interest_gpt(status) as (client, _):
        with pytest.raises(ModelUnavailable, match=rf"{SPEC.model_name} at http://127.*{status.name}: as scripted"):
            await client.answers(SPEC, ["user"], 10.0)
    async with text_encoder(status) as (encoder, _):
        with pytest.raises(ModelUnavailable, match=rf"text_encoder at http://127.*{status.name}: as scripted"):
            await encoder.encode(["name"])


async def test_what_is_refused_as_it_stands_is_not() -> None:
    async with interest_gpt(grpc.StatusCode.INVALID_ARGUMENT) as (client, _):
        with pytest.raises(ModelRefused, match="INVALID_ARGUMENT: as scripted"):
            await client.answers(SPEC, ["user"], 10.0)
    async with text_encoder(grpc.StatusCode.INVALID_ARGUMENT) as (encoder, _):
        with pytest.raises(ModelRefused, match="INVALID_ARGUMENT: as scripted"):
            await encoder.encode(["name"])


@pytest.mark.parametrize("status", list(HTTP_STATUSES))
async def test_no_status_escapes_the_tree_of_errors(status: grpc.StatusCode) -> None:
    async with interest_gpt(status) as (client, _):
        with pytest.raises(ChannelError):
            await client.answers(SPEC, ["user"], 10.0)


async def test_a_text_that_is_no_unicode_is_refused_before_it_is_sent() -> None:
    async with interest_gpt(shouted) as (client, script):
        with pytest.raises(ModelRefused, match="prompt 1: found surrogates not allowed at character 3"):
            await client.answers(SPEC, ["user", "use\ud800"], 10.0)
    async with text_encoder(measured) as (encoder, _):
        with pytest.raises(ModelRefused, match="text 0: found surrogates"):
            await encoder.encode(["\ud800"])
    assert script.requests == []


async def test_a_server_that_hangs_costs_the_timeout_and_the_call_runs_on() -> None:
    async with interest_gpt(None) as (client, script):
        seconds = 0.2
        # On a busy machine the time may be over before the server hears of the call.
        while not script.requests:
            with pytest.raises(ModelUnavailable):
                await client.answers(SPEC, ["user"], seconds)
            seconds *= 2
        assert not script.cancelled.is_set()


async def test_waiting_for_a_turn_counts_against_the_timeout() -> None:
    async with interest_gpt(None, max_batches_in_flight=1) as (client, _):
        with pytest.raises(ModelUnavailable):
            await client.answers(SPEC, ["user"] * 12, 0.2)
        with pytest.raises(ModelUnavailable, match="no answer in time"):
            await asyncio.gather(*(client.answers(SPEC, ["user"], 0.2) for _ in range(2)))


async def test_one_failing_batch_fails_the_call_and_the_other_runs_on() -> None:
    async with interest_gpt(grpc.StatusCode.INTERNAL, None, together=2) as (client, script):
        with pytest.raises(ModelUnavailable, match="INTERNAL"):
            await client.answers(SPEC, ["user"] * 8, 10.0)
        assert not script.cancelled.is_set()


def too_few(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    response = nothing(request)
    for name in (ANSWER, PROMPT_TOKENS, COMPLETION_TOKENS):
        output(response, name, np.zeros((1, 1), np.int32))
    return response


def numbers(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    response = nothing(request)
    for name in (ANSWER, PROMPT_TOKENS, COMPLETION_TOKENS):
        output(response, name, np.zeros((2, 1), np.int32))
    return response


def cut_short(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    response = shouted(request)
    response.raw_output_contents[0] = response.raw_output_contents[0][:-1]
    return response


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (nothing, f"{ANSWER}: found none"),
        (too_few, rf"{ANSWER}: found shape \(1, 1\), expected \(2, …\)"),
        (numbers, f"{ANSWER}: found int32"),
        (cut_short, "cannot be read"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_of_the_tree(step: Step, found: str) -> None:
    async with interest_gpt(step) as (client, _):
        with pytest.raises(ModelUnavailable, match=found):
            await client.answers(SPEC, ["one", "two"], 10.0)


def half_a_character(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    response = nothing(request)
    output(response, ANSWER, np.array([["crè".encode()[:-1]]], np.object_))
    output(response, PROMPT_TOKENS, np.ones((1, 1), np.int32))
    output(response, COMPLETION_TOKENS, np.ones((1, 1), np.int32))
    return response


async def test_half_a_character_at_the_end_of_an_answer_does_no_harm() -> None:
    async with interest_gpt(half_a_character) as (client, _):
        assert (await client.answers(SPEC, ["user"], 10.0))[0].text == "cr\ufffd"


async def test_a_server_that_is_away_is_worth_another_try_and_is_found_again() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    client = InterestGpt(f"127.0.0.1:{port}")
    with pytest.raises(ModelUnavailable):
        await client.answers(SPEC, ["user"], 5.0)
    async with listening(Script([shouted]), port):
        assert await client.answers(SPEC, ["user"], 5.0) == [Answer("USER", 4, 1)]
        await client.close()


async def test_a_closed_client_connects_anew() -> None:
    async with interest_gpt(shouted) as (client, _):
        await client.close()
        assert await client.answers(SPEC, ["user"], 5.0) == [Answer("USER", 4, 1)]


async def test_names_are_embedded_in_batches_and_keep_their_order() -> None:
    texts = ["x" * i for i in range(1, 136)]
    async with text_encoder(measured) as (encoder, script):
        vectors = await encoder.encode(texts)
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [[i, 1] for i in range(1, 136)]
        assert (await encoder.encode([])).shape == (0, 0)
    assert sorted(len(texts_of(request)) for request in script.requests) == [7, 64, 64]
    assert {request.model_name for request in script.requests} == {"text_encoder"}


async def test_vectors_that_are_not_finite_are_no_answer() -> None:
    def broken(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
        response = nothing(request)
        output(response, "embeddings", np.full((1, 2), np.nan, np.float32))
        return response

    async with text_encoder(broken) as (encoder, _):
        with pytest.raises(ModelUnavailable, match="embeddings: found nan, expected float32"):
            await encoder.encode(["name"])
