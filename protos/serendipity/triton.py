"""Calls to models on Triton, over HTTP. None is cancelled: who has no more time stops waiting, and it runs on.

HTTP over asyncio's streams takes half of the client's CPU that gRPC takes, and Triton before 2.59 crashes now and then
when a gRPC call is cancelled, or its client dies, while it is being answered.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

T = TypeVar("T")

MOST_GIVEN_UP = 16
"""Calls that may run on although nobody waits for them; with as many, no other begins."""

LEAST_SECONDS = 0.5
"""Time that a question to a model has at least, whoever still waits for it. One that takes longer has met a connection
that was cut without a word, or a server that hangs: the sooner that is known, the fewer wait for it."""

_STATE_SECONDS = 2.0
"""For the server to tell its state."""

_SOUND = [2, 59]
"""Version from which on servers bear gRPC calls that are cancelled."""

_STATUSES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_TLS_FILES = {"ca", "certificate", "key"}

Arrays = Mapping[str, NDArray[Any]]


class TritonError(Exception):
    """No answer. status: a gRPC status's name."""

    def __init__(self, status: str, message: str) -> None:
        self.status = status
        super().__init__(f"{status}: {message}")


class Triton:
    """Asks one Triton by its HTTP protocol with binary tensors. Belongs to one event loop.

    A connection is made when it is needed, carries one call at a time and is kept for the next. url: without files.
    """

    def __init__(self, url: str, headers: Callable[[], str] = str) -> None:
        """url: as `check_url` takes it; headers: gives further lines of the head of each request to a model."""
        self._address = TritonAddress.of(url)
        self.url = url.partition("?")[0]
        self._headers = headers
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._given_up: set[asyncio.Task[Any]] = set()

    async def infer(
        self, model_name: str, inputs: Arrays, outputs: Sequence[str], seconds: float
    ) -> dict[str, NDArray[Any]]:
        """Ask a model once and return those of the named outputs that it gave. Not to be cancelled: `wait` for it.

        inputs: by name; object (bytes) as BYTES, others as what they are. outputs: none to be given all of them.
        seconds: that it may wait in Triton's queue. Raises TritonError.
        """
        contents = [_content(values) for values in inputs.values()]
        request = {
            "parameters": {"timeout": max(1, int(seconds * 1e6)), "binary_data_output": True},
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
            f"Inference-Header-Content-Length: {len(head)}\r\n{self._headers()}",
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

    async def request(self, line: str, body: bytes = b"", seconds: float = _STATE_SECONDS) -> Any:
        """Make a request of JSON, as "GET /v2/models/stats", and return what it is answered. Raises TritonError."""
        status, _, answer = await self._exchange(line, "", body, seconds)
        if status != 200:
            raise TritonError(_STATUSES.get(status, "UNKNOWN"), _message(answer))
        try:
            return json.loads(answer or b"null")
        except ValueError as error:
            raise _unreadable(error) from error

    async def version(self) -> str:
        """Tell the server's version, such as 2.59.0. Raises TritonError."""
        found = await self.request("GET /v2")
        try:
            return str(found["version"])
        except (KeyError, TypeError) as error:
            raise _unreadable(error) from error

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
        self._let_go()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._given_up.discard(task)
        if not task.cancelled():
            # Nobody may be left to ask for it, which asyncio would complain of.
            task.exception()

    def _let_go(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def _exchange(
        self, request: str, headers: str, body: bytes, seconds: float
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return status, headers (lower-case names) and body of its answer."""
        head = f"{request} HTTP/1.1\r\nHost: {self._address.netloc}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
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
            self._let_go()
            raise TritonError("DEADLINE_EXCEEDED", f"no answer in {seconds:.3g} s") from error
        except (OSError, EOFError) as error:
            self._let_go()
            raise TritonError("UNAVAILABLE", str(error) or type(error).__name__) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise TritonError("UNKNOWN", f"{error}, expected Triton's HTTP port") from error
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
        # Files are read for each connection, so that renewed ones count without a restart.
        address = self._address
        return await asyncio.open_connection(address.host, address.port, ssl=address.tls_context())


def ask(url: str, seconds: float, question: Callable[[Triton], Coroutine[Any, Any, T]]) -> T:
    """Ask from where there is no event loop: connect, `wait` for what `question` asks, close."""

    async def asked() -> T:
        triton = Triton(url)
        try:
            return await triton.wait(question(triton), seconds)
        finally:
            await triton.close()

    return asyncio.run(asked())


def fault_of(version: str) -> str:
    """Say why a server of a version is not for production; empty where it is."""
    numbers = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    if numbers >= _SOUND:
        return ""
    return (
        f"tritonserver {version} is for demos and tests, over HTTP: before 2.59 (container 25.06) a gRPC call that is "
        "cancelled, or whose client dies, can crash it, so nobody may call it over gRPC while it serves"
    )


@dataclass(frozen=True)
class TritonAddress:
    """Where a Triton listens. tls: None for plain text, else paths of PEM files by name, see `check_url`."""

    host: str
    port: int
    tls: Mapping[str, str] | None

    @classmethod
    def of(cls, url: str) -> TritonAddress:
        """Read what `check_url` takes. Raises ValueError."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            files = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
            has_files = files.keys() <= _TLS_FILES and ("certificate" in files) == ("key" in files)
            if parts.hostname and parts.port and not parts.path.strip("/") and not parts.fragment and has_files:
                if parts.scheme == "https":
                    return cls(parts.hostname, parts.port, files)
                if parts.scheme == "http" and not files:
                    return cls(parts.hostname, parts.port, None)
        except ValueError:
            pass  # a port or a query that is none
        raise ValueError(
            f"found {url!r}, expected host:port, http://host:port or https://host:port?ca=FILE&certificate=FILE&key=FILE"
        )

    @property
    def netloc(self) -> str:
        """host:port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Read the files for one connection; None in plain text. Raises OSError."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.get("ca"))
        if "certificate" in self.tls:
            context.load_cert_chain(self.tls["certificate"], self.tls["key"], password="")
        return context


def check_url(url: str) -> str:
    """Return the address of a Triton: host:port, http://host:port or https://host:port?ca=FILE&certificate=FILE&key=FILE.

    Files are PEM. ca: certificates of which one must have signed the server's, the system's by default; certificate,
    key: what a server is shown that asks for it. Raises ValueError, also for files that cannot be used.
    """
    address = TritonAddress.of(url)
    try:
        for path in (address.tls or {}).values():
            Path(path).open("rb").close()
        address.tls_context()
    except OSError as error:
        raise ValueError(f"found {url!r}, of which a file cannot be used: {error}") from error
    return url


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
