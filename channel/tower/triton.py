"""The user tower on Triton: the one place that speaks to it, and the one place that knows its errors."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerAnswerInvalid, TowerError, TowerTimeout, TowerUnavailable
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.breaker import CircuitBreaker
from serendipity.channel.tower.tower import check_user_vectors
from serendipity.features import INPUT_NAMES, OUTPUT_NAME, TowerInputs

_log = logging.getLogger(__name__)

_FIRST_TRY = 0.6
"""Part of the time left that the first of two attempts may take. A call waits over 50 ms in Triton's queue about once
in 1,000 while another model is being loaded; the second attempt is for that."""

_TELLING = 0.010
"""Seconds a call must have had for its timeout to count against the server: a hurried caller must not shut it off
for everyone."""

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC backs off for up to two minutes by default; the breaker already spares a server that is away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


_WORTH_ANOTHER_TRY = frozenset(
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    ]
)

_DATATYPES = {np.dtype(np.int32): "INT32", np.dtype(np.float16): "FP16", np.dtype(np.float32): "FP32"}
_DTYPES: dict[str, Any] = {name: dtype for dtype, name in _DATATYPES.items()}


class TritonTower:
    """Calls the user tower; see UserTower. Belongs to one event loop, connects at the first call."""

    def __init__(self, url: str, settings: ChannelSettings | None = None) -> None:
        """url: Triton's gRPC address, host:port."""
        settings = settings or ChannelSettings()
        self._url = url
        self._max_batch = settings.tower_max_batch
        self._breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_ms / 1_000)
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        """Run the model; one call for all users up to the model's batch size. See UserTower.user_vectors."""
        if len(inputs) <= self._max_batch:
            return await self._attempt_twice(model_name, inputs, deadline)
        parts = (
            TowerInputs(*(getattr(inputs, name)[at : at + self._max_batch] for name in INPUT_NAMES))
            for at in range(0, len(inputs), self._max_batch)
        )
        tasks = [asyncio.ensure_future(self._attempt_twice(model_name, part, deadline)) for part in parts]
        try:
            return np.concatenate(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def _attempt_twice(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        try:
            return await self._guarded(model_name, inputs, deadline.share(_FIRST_TRY))
        except (TowerTimeout, _Transient):
            if deadline.expired:
                raise
            return await self._guarded(model_name, inputs, deadline)

    async def _guarded(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        time_left = deadline.remaining
        if time_left <= 0:
            raise TowerTimeout(f"{model_name} at {self._url}: no time left to call it")
        if not self._breaker.admit():
            raise TowerUnavailable(f"{model_name} at {self._url}: held back after repeated failures")
        try:
            vectors = check_user_vectors(await self._infer(model_name, inputs, time_left), inputs, model_name)
        except TowerTimeout as error:
            if time_left >= _TELLING:
                self._fail(error)
            else:
                self._breaker.abandon()
            raise
        except (_Transient, TowerAnswerInvalid) as error:
            self._fail(error)
            raise
        except BaseException:
            self._breaker.abandon()
            raise
        if self._breaker.is_open:
            _log.warning("%s: the user tower answers again", self._url)
        self._breaker.succeed()
        return vectors

    def _fail(self, error: TowerError) -> None:
        was_open = self._breaker.is_open
        self._breaker.fail()
        if self._breaker.is_open and not was_open:
            _log.warning("%s: the user tower is left alone for a while: %s", self._url, error)

    async def _infer(self, model_name: str, inputs: TowerInputs, time_left: float) -> NDArray[np.float32] | None:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._url, options=_CHANNEL_OPTIONS)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        try:
            answer = await self._stub.ModelInfer(_request(model_name, inputs, time_left), timeout=time_left)
            vectors = _vectors(answer)
            # Rows beyond are padding: of those batched together, others had more interests.
            return vectors if vectors is None or vectors.ndim != 3 else vectors[:, : 1 + inputs.interests.shape[1]]
        except grpc.aio.AioRpcError as error:
            raise self._mapped(model_name, error) from error
        except Exception as error:
            # A closed channel, an answer that does not parse: whatever else can come back.
            raise TowerUnavailable(f"{model_name} at {self._url}: {type(error).__name__}: {error}") from error

    def _mapped(self, model_name: str, error: grpc.aio.AioRpcError) -> TowerError:
        code = error.code()
        text = f"{model_name} at {self._url}: {code.name}: {error.details()}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TowerTimeout(text)
        if code in _WORTH_ANOTHER_TRY:
            return _Transient(text)
        # NOT_FOUND, INVALID_ARGUMENT …: the same call would fail again, and the server is well.
        return TowerUnavailable(text)


def _request(model_name: str, inputs: TowerInputs, time_left: float) -> Any:
    """Build the message itself: tritonclient's own way of doing so takes 0.3 ms more."""
    request = service_pb2.ModelInferRequest(model_name=model_name)
    # Bounds the wait in Triton's queue; the call's own timeout bounds all of it.
    request.parameters["timeout"].int64_param = max(1, int(time_left * 1e6))
    request.outputs.add(name=OUTPUT_NAME)
    for name, array in inputs.arrays().items():
        request.inputs.add(name=name, datatype=_DATATYPES[array.dtype], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def _vectors(answer: Any) -> NDArray[np.float32] | None:
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=False):
        if output.name == OUTPUT_NAME:
            vectors: NDArray[np.float32] = np.frombuffer(content, _DTYPES[output.datatype]).reshape(tuple(output.shape))
            return vectors
    return None


class _Transient(TowerUnavailable):
    """Not answered, and worth one more attempt."""
