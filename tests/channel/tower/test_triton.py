"""The Triton client against real gRPC servers: ones that are away, hang, refuse, and answer wrongly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerAnswerInvalid, TowerError, TowerTimeout, TowerUnavailable
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower import triton
from serendipity.channel.tower.breaker import CircuitBreaker
from serendipity.channel.tower.triton import TritonTower
from serendipity.features import INPUT_NAMES, OUTPUT_NAME, FeatureAssembler, LongHistory, TowerInputs
from serendipity.novelty import Clicks

MODEL = "user_tower_0123456789abcdef"
K, DIM = 3, 4

Answer = Callable[[service_pb2.ModelInferRequest], service_pb2.ModelInferResponse | None]
Step = Answer | grpc.StatusCode | None


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
    """Seconds a call was given."""
    return float(request.parameters["timeout"].int64_param) / 1e6


def good(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    return response(vectors_for(request))


class Script(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers each call by the next step, the last one for ever: an answer, a status, or None for a call that hangs.

    An answer that turns out to be None lets its call hang, too.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.cancelled = asyncio.Event()

    async def ModelInfer(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, grpc.StatusCode):
            await context.abort(step, "as scripted")
        answer = step(request) if step is not None else None
        if answer is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return answer


@asynccontextmanager
async def serving(*steps: Step, **options: object) -> AsyncIterator[tuple[TritonTower, Script]]:
    server, script = grpc.aio.server(), Script(steps)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tower = TritonTower(f"127.0.0.1:{port}", ChannelSettings(**options))  # type: ignore[arg-type]
    try:
        yield tower, script
    finally:
        await tower.close()
        await server.stop(None)


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


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
async def test_a_passing_failure_is_tried_once_more(status: grpc.StatusCode) -> None:
    async with serving(status, good) as (tower, script):
        assert len(await ask(tower)) == 1
        assert len(script.requests) == 2
    async with serving(status) as (tower, script):
        with pytest.raises(TowerUnavailable, match=f"{MODEL} at 127.*{status.name}: as scripted"):
            await ask(tower)
        assert len(script.requests) == 2


async def test_a_call_that_hangs_is_tried_again_inside_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unless_in_a_hurry(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse | None:
        return good(request) if timeout_of(request) > 30.0 else None

    async with serving(unless_in_a_hurry) as (tower, script):
        first_try = 0.005
        # On a busy machine the first call may end before the server hears of it.
        while len(script.requests) < 2:
            script.requests.clear()
            monkeypatch.setattr(triton, "_FIRST_TRY", first_try)
            deadline = Deadline.after(60.0)
            assert len(await tower.user_vectors(MODEL, users(1), deadline)) == 1
            assert not deadline.expired
            first_try *= 2
            assert first_try < 0.5


async def test_a_server_that_hangs_costs_no_more_than_the_deadline() -> None:
    async with serving(None) as (tower, script):
        async with asyncio.timeout(10):
            with pytest.raises(TowerTimeout):
                await ask(tower, seconds=0.4)
        # Both calls together; gRPC may end the first a little early.
        assert sum(timeout_of(request) for request in script.requests) < 0.41


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
    ],
)
async def test_a_refusal_is_not_tried_again(status: grpc.StatusCode) -> None:
    async with serving(status) as (tower, script):
        with pytest.raises(TowerUnavailable, match=status.name):
            await ask(tower)
        assert len(script.requests) == 1


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
async def test_no_status_of_the_server_gets_through_unmapped(status: grpc.StatusCode) -> None:
    async with serving(status) as (tower, _):
        with pytest.raises(TowerError):
            await ask(tower, seconds=2.0)


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
        with pytest.raises(TowerError):
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
        tower = TritonTower(f"127.0.0.1:{placeholder.getsockname()[1]}")
        deadline = Deadline.after(20.0)
        with pytest.raises(TowerUnavailable, match="UNAVAILABLE"):
            await tower.user_vectors(MODEL, users(1), deadline)
        assert deadline.remaining > 5
        await tower.close()


async def test_a_server_that_speaks_no_grpc_is_a_tower_error() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    tower = TritonTower(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
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


async def test_a_cancelled_request_cancels_the_call() -> None:
    async with serving(None) as (tower, script):
        task = asyncio.ensure_future(ask(tower))
        while not script.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(script.cancelled.wait(), 10)


async def test_a_server_that_keeps_failing_is_left_alone_and_then_tried_by_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(triton, "CircuitBreaker", partial(CircuitBreaker, clock=lambda: now[0]))
    steps = [grpc.StatusCode.UNAVAILABLE] * 4 + [good]
    async with serving(*steps, breaker_failures=4, breaker_open_ms=200) as (tower, script):
        for _ in range(2):
            with pytest.raises(TowerUnavailable, match="as scripted"):
                await ask(tower)
        for moment in (0.0, 0.199):
            now[0] = moment
            with pytest.raises(TowerUnavailable, match="held back after repeated failures"):
                await ask(tower)
        assert len(script.requests) == 4
        now[0] = 0.2
        assert len(await ask(tower)) == 1
        assert len(script.requests) == 5


async def test_hurried_callers_do_not_shut_the_server_off_for_others() -> None:
    async with serving(*[None] * 6, good, breaker_failures=2) as (tower, _):
        for _ in range(3):
            with pytest.raises(TowerTimeout):
                await ask(tower, seconds=0.008)
        assert not tower._breaker.is_open


async def test_a_closed_tower_connects_anew() -> None:
    async with serving(good) as (tower, _):
        await ask(tower)
        await tower.close()
        assert len(await ask(tower)) == 1
