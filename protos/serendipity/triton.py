"""Calls to models on Triton, over HTTP or gRPC. None is cancelled: who has no more time stops waiting, and it runs on.

Triton before 2.59 crashes now and then when a gRPC call is cancelled, or its client dies, while it is being answered;
its HTTP side does not. HTTP over asyncio's streams takes less of the client's CPU, too, than grpc.aio or aiohttp.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

T = TypeVar("T")

MOST_GIVEN_UP = 16
"""Calls that may run on although nobody waits for them; with as many, no other begins."""

LEAST_SECONDS = 2.0
"""Time that a call over HTTP has at least, whoever still waits for it. One that takes longer has met a connection that
was cut without a word, or a server that hangs."""

_STATUSES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC backs off for up to two minutes by default; the callers have a back-off of their own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A call has no deadline, since that would cancel it: only this notices a connection that was cut without a word.
    # keepalive_timeout_ms does not: the ping's own time-out, a minute by default, is what counts.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
]

Arrays = Mapping[str, NDArray[Any]]


class TritonError(Exception):
    """No answer. status: a gRPC status's name, whichever way Triton was asked."""

    def __init__(self, status: str, message: str) -> None:
        self.status = status
        super().__init__(f"{status}: {message}")


class Triton:
    """Asks one Triton. Belongs to one event loop, connects at the first call and again after `close`."""

    def __init__(self, url: str) -> None:
        """url: as `check_url` takes it."""
        parts = _split(url)
        self._transport: _Http | _Grpc = _Grpc(parts.netloc) if parts.scheme == "grpc" else _Http(parts)
        self._running: set[asyncio.Task[Any]] = set()
        self._given_up: set[asyncio.Task[Any]] = set()

    async def infer(
        self, model_name: str, inputs: Arrays, outputs: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        """Ask a model once and return those of the named outputs that it gave. Not to be cancelled: `wait` for it.

        inputs: by name; object (bytes) as BYTES, others as what they are. seconds: that it may wait in Triton's queue.
        Raises TritonError.
        """
        return await self._transport.infer(model_name, inputs, outputs, seconds)

    async def is_ready(self, model_name: str) -> bool:
        """Tell whether a model is ready. Raises TritonError when Triton does not say."""
        return await self._transport.is_ready(model_name)

    async def wait(self, call: Coroutine[Any, Any, T], seconds: float) -> T:
        """Wait for a call, which runs on after so many seconds, and when the waiting task is cancelled.

        Raises what the call raises, or TritonError: DEADLINE_EXCEEDED when the time is over, RESOURCE_EXHAUSTED when
        too many calls run on already.
        """
        if len(self._given_up) >= MOST_GIVEN_UP:
            call.close()
            raise TritonError("RESOURCE_EXHAUSTED", f"{MOST_GIVEN_UP} calls run on that nobody waits for")
        task = asyncio.ensure_future(call)
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                self._given_up.add(task)
        if not task.done():
            raise TritonError("DEADLINE_EXCEEDED", f"no answer in {seconds:.3g} s")
        if task.cancelled():
            raise TritonError("CANCELLED", "the connection was closed")
        return task.result()

    async def close(self) -> None:
        """Close the connections, once the calls that still run have ended or had LEAST_SECONDS to do so."""
        if self._running:
            await asyncio.wait(self._running, timeout=LEAST_SECONDS)
        for task in self._running:
            task.cancel()
        await self._transport.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._given_up.discard(task)
        if not task.cancelled():
            # Nobody may be left to ask for it, which asyncio would complain of.
            task.exception()


def ask(url: str, seconds: float, question: Callable[[Triton], Coroutine[Any, Any, T]]) -> T:
    """Ask from where there is no event loop: connect, `wait` for what `question` asks, close."""

    async def asked() -> T:
        triton = Triton(url)
        try:
            return await triton.wait(question(triton), seconds)
        finally:
            await triton.close()

    return asyncio.run(asked())


def check_url(url: str) -> str:
    """Return a Triton's address: host:port or http://host:port of HTTP, grpc://host:port. Raises ValueError."""
    _split(url)
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme in ("http", "grpc") and parts.hostname and parts.port and not parts.path.strip("/"):
            return parts
    except ValueError:
        pass  # a port that is none
    raise ValueError(f"found {url!r}, expected host:port, http://host:port or grpc://host:port")


class _Http:
    """Triton's HTTP protocol with binary tensors. A connection carries one call at a time and is kept for the next."""

    def __init__(self, parts: SplitResult) -> None:
        self._host, self._port = parts.hostname, parts.port
        self._netloc = parts.netloc
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def infer(
        self, model_name: str, inputs: Arrays, outputs: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        contents = [_content(values) for values in inputs.values()]
        request = {
            "parameters": {"timeout": max(1, int(seconds * 1e6))},
            "inputs": [
                {
                    "name": name,
                    "shape": values.shape,
                    "datatype": np_to_triton_dtype(values.dtype),
                    "parameters": {"binary_data_size": len(content)},
                }
                for (name, values), content in zip(inputs.items(), contents, strict=True)
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        }
        head = json.dumps(request).encode()
        status, headers, body = await self._exchange(
            f"POST /v2/models/{quote(model_name)}/infer",
            f"Inference-Header-Content-Length: {len(head)}\r\n",
            b"".join((head, *contents)),
            max(seconds, LEAST_SECONDS),
        )
        if status != 200:
            raise TritonError(_STATUSES.get(status, "UNKNOWN"), _message(body))
        try:
            at = int(headers.get("inference-header-content-length", len(body)))
            arrays = {}
            for output in json.loads(body[:at])["outputs"]:
                size = output["parameters"]["binary_data_size"]
                arrays[output["name"]] = _array(output["datatype"], output["shape"], body[at : at + size])
                at += size
            return arrays
        except Exception as error:
            raise _unreadable(error) from error

    async def is_ready(self, model_name: str) -> bool:
        status, _, body = await self._exchange(f"GET /v2/models/{quote(model_name)}/ready", "", b"", LEAST_SECONDS)
        # Of a model that is not ready Triton says that the request is wrong.
        if status not in (200, 400, 404):
            raise TritonError(_STATUSES.get(status, "UNKNOWN"), _message(body))
        return status == 200

    async def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def _exchange(
        self, request: str, headers: str, body: bytes, seconds: float
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return status, headers (lower-case names) and body of its answer."""
        head = f"{request} HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await self._connection()
                try:
                    writer.write(head.encode() + body)
                    answer = await _answer(reader)
                except BaseException:
                    writer.transport.abort()
                    raise
        except TimeoutError as error:
            # What cut this connection may have cut those that wait for their next call.
            await self.close()
            raise TritonError("DEADLINE_EXCEEDED", f"no answer in {seconds:.3g} s") from error
        except (OSError, EOFError) as error:
            await self.close()
            raise TritonError("UNAVAILABLE", str(error) or type(error).__name__) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise TritonError(
                "UNKNOWN", f"{error}, expected Triton's HTTP port (of gRPC, write grpc://{self._netloc})"
            ) from error
        # Whatever else a proxy says may be about the connection, and not the answer to this call.
        if answer[0] == 200 and answer[1].get("connection", "").lower() != "close":
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read an answer of HTTP/1.1. Raises ValueError for what is none with a length, as Triton's always are."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise ConnectionResetError("the connection was closed") from error
        head = error.partial
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not first.startswith("HTTP/1.1 ") or "content-length" not in headers:
        raise ValueError(f"found an answer that begins with {first[:40]!r}")
    return int(first[9:12]), headers, await reader.readexactly(int(headers["content-length"]))


class _Grpc:
    """Triton's gRPC protocol. Built by hand, a message takes 0.3 ms less than in tritonclient's way."""

    def __init__(self, netloc: str) -> None:
        self._netloc = netloc
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def infer(
        self, model_name: str, inputs: Arrays, outputs: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        request = service_pb2.ModelInferRequest(model_name=model_name)
        request.parameters["timeout"].int64_param = max(1, int(seconds * 1e6))
        for name, values in inputs.items():
            request.inputs.add(name=name, datatype=np_to_triton_dtype(values.dtype), shape=values.shape)
            request.raw_input_contents.append(_content(values))
        for name in outputs:
            request.outputs.add(name=name)
        answer = await self._call("ModelInfer", request)
        try:
            return {
                output.name: _array(output.datatype, output.shape, content)
                for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True)
            }
        except Exception as error:
            raise _unreadable(error) from error

    async def is_ready(self, model_name: str) -> bool:
        return bool((await self._call("ModelReady", service_pb2.ModelReadyRequest(name=model_name))).ready)

    async def close(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def _call(self, method: str, request: Any) -> Any:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._netloc, options=_CHANNEL_OPTIONS)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        try:
            return await getattr(self._stub, method)(request)
        except grpc.aio.AioRpcError as error:
            raise TritonError(error.code().name, error.details()) from error
        except Exception as error:
            # A closed channel, an answer that does not parse: whatever else can come back.
            raise TritonError("UNAVAILABLE", f"{type(error).__name__}: {error}") from error


def _content(values: NDArray[Any]) -> bytes:
    content: bytes = serialize_byte_tensor(values).item() if values.dtype == np.object_ else values.tobytes()
    return content


def _array(datatype: str, shape: Sequence[int], content: bytes) -> NDArray[Any]:
    if datatype == "BYTES":
        values = deserialize_bytes_tensor(content)
    else:
        values = np.frombuffer(content, triton_to_np_dtype(datatype))
    array: NDArray[Any] = values.reshape(tuple(shape))
    return array


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return repr(body[:200])


def _unreadable(error: Exception) -> TritonError:
    return TritonError("UNKNOWN", f"found an answer that cannot be read ({type(error).__name__}: {error})")
