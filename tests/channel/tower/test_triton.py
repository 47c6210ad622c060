"""The Triton client against servers that are away, hang, refuse, and answer wrongly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from serendipity import triton as transport
from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerAnswerInvalid, TowerError, TowerTimeout, TowerUnavailable
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower import triton
from serendipity.channel.tower.breaker import CircuitBreaker
from serendipity.channel.tower.triton import TritonTower
from serendipity.features import INPUT_NAMES, OUTPUT_NAME, FeatureAssembler, LongHistory, TowerInputs
from serendipity.novelty import Clicks
from tests.fixtures.triton_script import HTTP_STATUSES, Script, Step, listening
from tests.fixtures.triton_script import serving as serving_script

MODEL = "user_tower_0123456789abcdef"
K, DIM = 3, 4


def users(n: int, interests: int = K) -> TowerInputs:
    assembler = FeatureAssembler(history_length=5, max_long_categories=2, max_interests=K, interest_dim=6)
    vectors = np.linspace(0, 1, interests * 6, dtype=np.float32).reshape(interests, 6)
    empty = assembler.assemble(Clicks.empty(), LongHistory.empty(), np.zeros(1, np.int32), vectors, 0)
    inputs = TowerInputs.stack([empty] * n)
    inputs.history_items[:, 0] = np.arange(n)
    return inputs


def vectors_for(request: service_pb2.ModelInferRequest) -> np.ndarray:
    """Vectors that tell whose they are: the first history item of each user."""
    items = np.frombuffer(request.raw_input_contents[0], np.int32).reshape(request.inputs[0].shape)
    interests = request.inputs[-1].shape[1]
    return np.broadcast_to(items[:, :1, None], (len(items), 1 + interests, DIM)).astype(np.float32)


def response(vectors: np.ndarray, name: str = OUTPUT_NAME) -> service_pb2.ModelInferResponse:
    answer = service_pb2.ModelInferResponse(model_name=MODEL, model_version="1")
    answer.outputs.add(name=name, datatype="FP32", shape=vectors.shape)
    answer.raw_output_contents.append(vectors.astype(np.float32).tobytes())
    return answer


def timeout_of(request: service_pb2.ModelInferRequest) -> float:
    """Seconds that a call may wait in Triton's queue."""
    return float(request.parameters["timeout"].int64_param) / 1e6


def good(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    return response(vectors_for(request))


@asynccontextmanager
async def serving(*steps: Step, **options: object) -> AsyncIterator[tuple[TritonTower, Script]]:
    async with serving_script(*steps) as (url, script):
        tower = TritonTower(url, ChannelSettings(**options))  # type: ignore[arg-type]
        try:
            yield tower, script
        finally:
            script.released.set()
            await tower.close()


def ask(tower: TritonTower, n: int = 1, seconds: float = 10.0) -> Awaitable[np.ndarray]:
    return tower.user_vectors(MODEL, users(n), Deadline.after(seconds))


async def test_one_call_carries_all_users_by_the_exact_model_name() -> None:
    async with serving(good) as (tower, script):
        vectors = await ask(tower, 5)
    assert vectors[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    (request,) = script.requests
    assert request.model_name == MODEL
    assert [tensor.name for tensor in request.inputs] == list(INPUT_NAMES)
    assert [tensor.datatype for tensor in request.inputs] == ["INT32"] * 6 + ["FP16"]
    dtypes = {"INT32": np.int32, "FP16": np.float16}
    for tensor, content, (name, array) in zip(
        request.inputs, request.raw_input_contents, users(5).arrays().items(), strict=True
    ):
        sent = np.frombuffer(content, dtypes[tensor.datatype]).reshape(tuple(tensor.shape))
        np.testing.assert_array_equal(sent, array, err_msg=name)
    assert [output.name for output in request.outputs] == [OUTPUT_NAME]
    assert 0 < request.parameters["timeout"].int64_param <= 10_000_000


@pytest.mark.parametrize("interests", [0, 1, 2, K])
async def test_no_more_interests_are_sent_than_there_are(interests: int) -> None:
    async with serving(good) as (tower, script):
        vectors = await tower.user_vectors(MODEL, users(2, interests), Deadline.after(10.0))
    # One row of zeros at least: Triton has no dimension 0.
    rows = max(1, interests)
    assert vectors.shape == (2, 1 + rows, DIM)
    assert list(script.requests[0].inputs[-1].shape) == [2, rows, 6]


async def test_more_users_than_the_model_takes_are_split_and_keep_their_order() -> None:
    async with serving(good, tower_max_batch=4) as (tower, script):
        vectors = await ask(tower, 10)
    assert vectors[:, 0, 0].tolist() == list(range(10))
    assert sorted(request.inputs[0].shape[0] for request in script.requests) == [2, 4, 4]


async def test_a_server_that_hangs_costs_no_more_than_the_deadline_and_is_not_cancelled() -> None:
    async with serving(None) as (tower, script):
        async with asyncio.timeout(10):
            with pytest.raises(TowerTimeout):
                await ask(tower, seconds=0.2)
        assert timeout_of(script.requests[0]) <= 0.2
    assert not script.cancelled.is_set()


async def test_a_cancelled_request_does_not_cancel_the_call() -> None:
    async with serving(None) as (tower, script):
        task = asyncio.ensure_future(ask(tower))
        while not script.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not script.cancelled.is_set()


async def test_no_more_calls_run_on_than_a_few() -> None:
    async with serving(None) as (tower, script):
        for _ in range(transport.MOST_GIVEN_UP):
            with pytest.raises(TowerTimeout):
                await ask(tower, seconds=0.001)
        with pytest.raises(TowerUnavailable, match="16 calls run on that nobody waits for"):
            await ask(tower)
        script.steps = [good]
        script.released.set()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert len(await ask(tower)) == 1
                    break
                except TowerUnavailable:
                    await asyncio.sleep(0)


@pytest.mark.parametrize("status", list(HTTP_STATUSES))
async def test_a_status_is_told_and_the_next_call_is_answered(status: grpc.StatusCode) -> None:
    async with serving(status, good) as (tower, _):
        with pytest.raises(TowerError, match=rf"{MODEL} at http://127.*{status.name}: as scripted"):
            await ask(tower)
        assert len(await ask(tower)) == 1


@pytest.mark.parametrize(
    ("vectors", "complaint"),
    [
        (np.zeros((1, 1 + K)), r"found shape \(1, 4\)"),
        (np.zeros((2, 1 + K, DIM)), r"found shape \(2, 4, 4\), expected \(1, 4, d\)"),
        (np.zeros((1, K, DIM)), r"expected \(1, 4, d\)"),
        (np.zeros((1, 1 + K, 0)), r"found shape \(1, 4, 0\)"),
        (np.full((1, 1 + K, DIM), np.nan), "vectors of 1 of 1 users are not finite"),
        (np.full((1, 1 + K, DIM), np.inf), "not finite"),
    ],
)
async def test_an_answer_of_the_wrong_shape_or_without_numbers_is_refused(vectors: np.ndarray, complaint: str) -> None:
    async with serving(lambda _: response(vectors)) as (tower, _):
        with pytest.raises(TowerAnswerInvalid, match=complaint):
            await ask(tower)


async def test_an_answer_without_the_output_or_cut_short_is_refused() -> None:
    async with serving(lambda request: response(vectors_for(request), "something_else")) as (tower, _):
        with pytest.raises(TowerAnswerInvalid, match="no output"):
            await ask(tower)

    def cut_short(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
        answer = good(request)
        answer.raw_output_contents[0] = answer.raw_output_contents[0][:-4]
        return answer

    async with serving(cut_short) as (tower, _):
        with pytest.raises(TowerError, match="cannot be read"):
            await ask(tower)


async def test_an_answer_of_another_type_is_refused() -> None:
    def halves(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
        answer = good(request)
        answer.outputs[0].datatype = "FP16"
        answer.raw_output_contents[0] = vectors_for(request).astype(np.float16).tobytes()
        return answer

    async with serving(halves) as (tower, _):
        with pytest.raises(TowerAnswerInvalid, match="found float16, expected float32"):
            await ask(tower)


async def test_nobody_listening_is_unavailable_at_once() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        tower = TritonTower(f"http://127.0.0.1:{placeholder.getsockname()[1]}")
        deadline = Deadline.after(20.0)
        with pytest.raises(TowerUnavailable, match="UNAVAILABLE"):
            await tower.user_vectors(MODEL, users(1), deadline)
        assert deadline.remaining > 5
        await tower.close()


async def test_a_server_that_speaks_another_protocol_is_a_tower_error() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    tower = TritonTower(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(TowerError):
        await ask(tower, seconds=1.0)
    await tower.close()
    server.close()
    await server.wait_closed()


async def test_no_time_left_calls_nobody() -> None:
    async with serving(good) as (tower, script):
        with pytest.raises(TowerTimeout, match="no time left"):
            await ask(tower, seconds=0)
        assert not script.requests


async def test_a_server_that_keeps_failing_is_left_alone_and_then_tried_by_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(triton, "CircuitBreaker", partial(CircuitBreaker, clock=lambda: now[0]))
    steps = [grpc.StatusCode.UNAVAILABLE] * 2 + [good]
    async with serving(*steps, breaker_failures=2, breaker_open_ms=200) as (tower, script):
        for _ in range(2):
            with pytest.raises(TowerUnavailable, match="as scripted"):
                await ask(tower)
        for moment in (0.0, 0.199):
            now[0] = moment
            with pytest.raises(TowerUnavailable, match="held back after repeated failures"):
                await ask(tower)
        assert len(script.requests) == 2
        now[0] = 0.2
        assert len(await ask(tower)) == 1
        assert len(script.requests) == 3


@pytest.mark.parametrize("status", [None, grpc.StatusCode.UNAVAILABLE])
async def test_hurried_callers_do_not_shut_the_server_off_for_the_patient(
    status: grpc.StatusCode | None,
) -> None:
    """However their calls end: answered too late, or thrown out of Triton's queue."""
    hurried_left = asyncio.Event()

    class Queue(Script):
        async def ModelInfer(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
            self.requests.append(request)
            if timeout_of(request) < 1.0:
                await hurried_left.wait()
                if status is not None:
                    await context.abort(status, "Request timeout expired")
            return good(request)

    async with listening(Queue([good])) as url:
        tower = TritonTower(url, ChannelSettings(breaker_failures=2, breaker_open_ms=60_000))
        for _ in range(4):
            with pytest.raises(TowerTimeout):
                await ask(tower, seconds=0.005)
        hurried_left.set()
        for _ in range(4):
            assert len(await ask(tower, seconds=60)) == 1
        await tower.close()
        assert len(await ask(tower, seconds=60)) == 1
        await tower.close()


async def test_calls_that_end_badly_after_their_callers_left_count_against_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "LEAST_SECONDS", 0.05)
    async with serving(None, breaker_failures=2, breaker_open_ms=60_000) as (tower, _):
        for _ in range(2):
            with pytest.raises(TowerTimeout):
                await ask(tower, seconds=0.001)
        await asyncio.wait(tower._triton._running)
        with pytest.raises(TowerUnavailable, match="held back"):
            await ask(tower)


async def test_every_call_is_measured_by_its_status_and_told_the_headers() -> None:
    calls: list[tuple[str, float]] = []
    script = Script([good, grpc.StatusCode.INTERNAL])
    async with listening(script) as url:
        tower = TritonTower(
            url,
            ChannelSettings(breaker_failures=1, breaker_open_ms=60_000),
            lambda status, seconds: calls.append((status, seconds)),
            lambda: "traceparent: 00-a-b-01\r\n",
        )
        await ask(tower)
        assert not tower.is_held_back
        with pytest.raises(TowerUnavailable):
            await ask(tower)
        assert tower.is_held_back
        with pytest.raises(TowerUnavailable, match="held back"):
            await ask(tower)
        await tower.close()
    assert [status for status, _ in calls] == ["OK", "INTERNAL"]
    assert all(0 < seconds < 60 for _, seconds in calls)
    assert [head["traceparent"] for head in script.heads] == ["00-a-b-01"] * 2


async def test_a_closed_tower_connects_anew() -> None:
    async with serving(good) as (tower, _):
        await ask(tower)
        await tower.close()
        assert len(await ask(tower)) == 1
