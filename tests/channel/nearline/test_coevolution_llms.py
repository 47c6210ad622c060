"""The client of Novelty and Relevance LLM against real servers: what it makes of answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

from serendipity.channel.errors import ChannelError, ModelRefused, ModelUnavailable
from serendipity.channel.nearline.coevolution_llms import CoevolutionLlms
from serendipity.groups.model import COUNT, EXCLUDED, PROMPT, PROPOSALS, SCORE
from serendipity.v1 import records_pb2
from tests.fixtures.triton_script import HTTP_STATUSES, Script, Step, nothing, output, serving, texts_of

SPEC = records_pb2.CoevolutionSpec(
    novelty_model_name="novelty_llm_0123456789abcdef",
    relevance_model_name="relevance_llm_0123456789abcdef",
    max_batch=4,
)


def answering(**columns: NDArray[Any]) -> Callable[[service_pb2.ModelInferRequest], service_pb2.ModelInferResponse]:
    """Answer every call by the same outputs."""

    def answer(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
        response = nothing(request)
        for name, values in columns.items():
            output(response, name, values)
        return response

    return answer


def cells(*texts: str | bytes) -> NDArray[np.object_]:
    return np.array([[text.encode() if isinstance(text, str) else text] for text in texts], np.object_)


def echoed(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """Proposals that tell whose they are: the prompt, then what is excluded for it."""
    excluded = [json.loads(cell) for cell in deserialize_bytes_tensor(request.raw_input_contents[1])]
    asked = zip(texts_of(request), excluded, strict=True)
    rows = [[[text, -1.0], *([name, -2] for name in names)] for text, names in asked]
    return answering(proposals=cells(*(json.dumps(row, ensure_ascii=False) for row in rows)))(request)


def measured(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """Scores that tell whose they are: a prompt's length."""
    return answering(score=np.array([[len(text)] for text in texts_of(request)], np.float32))(request)


@asynccontextmanager
async def llms(*steps: Step, together: int = 1, **options: int) -> AsyncIterator[tuple[CoevolutionLlms, Script]]:
    async with serving(*steps, together=together) as (url, script):
        client = CoevolutionLlms(url, **options)
        try:
            yield client, script
        finally:
            script.released.set()
            await client.close()


async def test_prompts_are_asked_in_batches_and_proposals_keep_their_order() -> None:
    prompts = [f"prompt {i} crème" for i in range(10)]
    excluded = [{f"é{i}", "a"} for i in range(10)]
    async with llms(echoed) as (client, script):
        found = await client.propose(SPEC, prompts, excluded, 3, 10.0)
    assert found == [
        [(prompt, -1.0), *((name, -2.0) for name in sorted(names))]
        for prompt, names in zip(prompts, excluded, strict=True)
    ]
    assert sorted(len(texts_of(request)) for request in script.requests) == [2, 4, 4]
    for request in script.requests:
        assert request.model_name == SPEC.novelty_model_name
        tensors = [(tensor.name, tensor.datatype) for tensor in request.inputs]
        assert tensors == [(PROMPT, "BYTES"), (EXCLUDED, "BYTES"), (COUNT, "INT32")]
        assert set(np.frombuffer(request.raw_input_contents[2], np.int32)) == {3}
        assert 0 < request.parameters["timeout"].int64_param <= 10_000_000


async def test_scores_keep_the_order_of_their_prompts() -> None:
    prompts = ["x" * n for n in range(1, 11)]
    async with llms(measured) as (client, script):
        assert await client.score(SPEC, prompts, 10.0) == [float(n) for n in range(1, 11)]
    assert {request.model_name for request in script.requests} == {SPEC.relevance_model_name}
    assert sorted(len(texts_of(request)) for request in script.requests) == [2, 4, 4]


async def test_no_prompts_need_no_call() -> None:
    async with llms(measured) as (client, script):
        assert await client.propose(SPEC, [], [], 3, 10.0) == []
        assert await client.score(SPEC, [], 10.0) == []
    assert script.requests == []


async def test_prompts_without_their_exclusions_are_a_mistake_of_the_caller() -> None:
    async with llms(echoed) as (client, script):
        with pytest.raises(ValueError, match="expected as many of each"):
            await client.propose(SPEC, ["one", "two"], [[]], 3, 10.0)
    assert script.requests == []


async def test_batches_in_flight_are_bounded_over_both_models() -> None:
    async with llms(measured, together=2, max_batches_in_flight=2) as (client, script):
        await asyncio.gather(*(client.score(SPEC, ["user"] * 8, 10.0) for _ in range(4)))
    assert len(script.requests) == 8
    assert script.most_in_flight == 2


@pytest.mark.parametrize("status", list(HTTP_STATUSES))
async def test_every_status_is_worth_another_try_or_not(status: grpc.StatusCode) -> None:
    is_refusal = status.name in ("INVALID_ARGUMENT", "UNIMPLEMENTED")
    async with llms(status) as (client, _):
        with pytest.raises(ModelRefused if is_refusal else ModelUnavailable) as proposed:
            await client.propose(SPEC, ["prompt"], [[]], 3, 10.0)
        with pytest.raises(ModelRefused if is_refusal else ModelUnavailable):
            await client.score(SPEC, ["prompt"], 10.0)
    assert isinstance(proposed.value, ChannelError)


async def test_a_text_that_is_no_unicode_is_refused_before_it_is_sent() -> None:
    async with llms(measured) as (client, script):
        with pytest.raises(ModelRefused, match="prompt 1: found surrogates not allowed at character 3"):
            await client.score(SPEC, ["user", "use\ud800"], 10.0)
    assert script.requests == []


async def test_a_server_that_hangs_costs_the_timeout_and_the_call_runs_on() -> None:
    async with llms(None) as (client, script):
        seconds = 0.2
        # On a busy machine the time may be over before the server hears of the call.
        while not script.requests:
            with pytest.raises(ModelUnavailable):
                await client.propose(SPEC, ["prompt"], [[]], 3, seconds)
            seconds *= 2
        assert not script.cancelled.is_set()


@pytest.mark.parametrize(
    "cell",
    [
        "", "[", "3", "null", '{"a": 1}', '[["a"]]', '[["a", "b"]]', '[["a", -1, 2]]', '[[1, -1.0]]', '[["a", NaN]]',
        '[["a", -Infinity]]', '[["a", true]]', '[["a", -1], ["b", -2], ["c", -3]]', b"\xff",
    ],
)  # fmt: skip
async def test_proposals_that_cannot_be_read_are_none(cell: str | bytes) -> None:
    async with llms(answering(proposals=cells(cell))) as (client, _):
        with pytest.raises(ModelUnavailable, match=rf"novelty_llm_.* {PROPOSALS}: found .*at most 2"):
            await client.propose(SPEC, ["prompt"], [[]], 2, 10.0)


@pytest.mark.parametrize(
    "step",
    [
        nothing,
        answering(score=np.ones((1, 1), np.float32)),
        answering(score=np.ones((2, 2), np.float32)),
        answering(score=np.ones((2, 1), np.int32)),
        answering(score=np.array([[1], [np.nan]], np.float32)),
        answering(score=np.array([[1], [np.inf]], np.float32)),
    ],
)
async def test_scores_that_cannot_be_read_are_none(step: Step) -> None:
    async with llms(step) as (client, _):
        with pytest.raises(ModelUnavailable, match=rf"relevance_llm_.* {SCORE}: found"):
            await client.score(SPEC, ["one", "two"], 10.0)


async def test_batches_that_do_not_fit_each_other_are_no_answer() -> None:
    wide = answering(score=np.ones((4, 3), np.float32))
    narrow = answering(score=np.ones((4, 2), np.float32))
    async with llms(wide, narrow) as (client, _):
        with pytest.raises(ModelUnavailable, match="batches of different widths"):
            await client.score(SPEC, ["prompt"] * 8, 10.0)
