"""The transport to Triton: what is sent arrives, nothing is cancelled, and a connection that was cut heals."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from benchmarks.wire import wire_to
from serendipity import triton
from serendipity.triton import Triton, TritonError, ask, check_url, fault_of
from tests.fixtures.certificates import Authority, Issued
from tests.fixtures.triton_script import Script, listening, nothing, serving

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=4)
ARRAYS = st.one_of(
    *(arrays.arrays(dtype, SHAPES) for dtype in (np.int32, np.int64, np.float16, np.float32, np.bool_)),
    arrays.arrays(np.object_, SHAPES, elements=st.binary(max_size=8), fill=st.nothing()),
)


def echo(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    """Give every input back, under its name."""
    answer = nothing(request)
    for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True):
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        answer.raw_output_contents.append(content)
    return answer


async def infer(client: Triton, value: int = 7, seconds: float = 10.0) -> int:
    inputs: dict[str, NDArray[np.int32]] = {"x": np.array([[value]], np.int32)}
    answer = await client.wait(client.infer("echo", inputs, ["x"], seconds), seconds)
    return int(answer["x"][0, 0])


@given(inputs=st.dictionaries(st.text("abc", min_size=1), ARRAYS, min_size=1, max_size=3))
def test_arrays_come_back_as_they_were_sent(inputs: dict[str, NDArray[np.generic]]) -> None:
    async def sent() -> dict[str, NDArray[np.generic]]:
        async with serving(echo) as (url, _):
            client = Triton(url)
            found = await client.wait(client.infer("echo", inputs, list(inputs), 10.0), 10.0)
            await client.close()
            return found

    found = asyncio.run(sent())
    assert list(found) == list(inputs)
    for name, values in inputs.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


async def test_many_calls_at_once_are_answered_each_with_its_own() -> None:
    async with serving(echo) as (url, _):
        client = Triton(url)
        for _ in range(3):
            assert await asyncio.gather(*(infer(client, value) for value in range(32))) == list(range(32))
        await client.close()


async def test_calls_that_still_run_may_end_before_the_connections_close() -> None:
    async with serving(None) as (url, script):
        client = Triton(url)
        with pytest.raises(TritonError, match=r"DEADLINE_EXCEEDED: no answer in 0\.05 s"):
            await infer(client, seconds=0.05)
        closing = asyncio.ensure_future(client.close())
        script.released.set()
        await closing
    assert not script.cancelled.is_set()


async def test_closing_ends_calls_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "LEAST_SECONDS", 0.05)
    async with serving(None) as (url, _):
        client = Triton(url)
        waiting = asyncio.ensure_future(infer(client, seconds=60.0))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(TritonError, match="CANCELLED"):
            await waiting


async def test_a_connection_cut_without_a_word_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "LEAST_SECONDS", 0.2)
    async with serving(echo) as (url, _), wire_to(url) as (address, wire):
        client = Triton(address)
        await asyncio.gather(*(infer(client) for _ in range(4)))
        wire.cut()
        with pytest.raises(TritonError):
            await infer(client, seconds=0.05)
        async with asyncio.timeout(30):
            # Whatever was lost on the way has its time; what comes after that finds a way.
            await asyncio.wait(client._running)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await infer(client) == 7
                    break
                except TritonError:
                    await asyncio.sleep(0.01)
        await client.close()


async def test_a_server_that_is_restarted_is_found_again() -> None:
    async with serving(echo) as (url, _):
        client = Triton(url)
        assert await infer(client) == 7
    with pytest.raises(TritonError, match="UNAVAILABLE"):
        await infer(client)
    async with listening(Script([echo]), int(url.rpartition(":")[2])):
        assert await infer(client) == 7
        await client.close()


async def test_the_port_of_grpc_is_told_from_that_of_http() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = Triton(f"127.0.0.1:{port}")
    with pytest.raises(TritonError, match="expected Triton's HTTP port"):
        await infer(client)
    await client.close()
    await server.stop(None)


async def test_it_can_be_asked_without_an_event_loop() -> None:
    inputs = {"x": np.array([[3]], np.int32)}
    async with serving(echo) as (url, _):
        answer = await asyncio.to_thread(ask, url, 10.0, lambda client: client.infer("echo", inputs, ["x"], 10.0))
    assert answer["x"].tolist() == [[3]]


def shown(server: Issued) -> ssl.SSLContext:
    """What a server that has a certificate listens with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    return context


async def test_over_tls_a_server_is_called_that_the_authority_signed_and_no_other(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    async with listening(Script([echo]), tls=shown(authority.issue("triton"))) as url:
        client = Triton(check_url(f"{url}?ca={authority.certificate}"))
        assert [await infer(client, value) for value in range(3)] == [0, 1, 2]
        assert client.url == url
        await client.close()
        client = Triton(f"{url}?ca={stranger.certificate}")
        with pytest.raises(TritonError, match=r"UNAVAILABLE: .*certificate verify failed"):
            await infer(client)
        await client.close()


async def test_a_server_that_asks_is_shown_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, context = authority.issue("channel"), shown(authority.issue("triton"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.certificate)
    async with listening(Script([echo]), tls=context) as url:
        client = Triton(f"{url}?ca={authority.certificate}&certificate={ours.certificate}&key={ours.key}")
        assert await infer(client) == 7
        await client.close()
        client = Triton(f"{url}?ca={authority.certificate}")
        with pytest.raises(TritonError, match="UNAVAILABLE"):
            await infer(client)
        await client.close()


def test_files_of_an_address_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name, told in (
        ("missing.pem", "No such file or directory: .*missing.pem"),
        ("ca.pem", r"NO_CERTIFICATE|no start"),
    ):
        with pytest.raises(ValueError, match=told):
            check_url(f"https://host:8443?ca={tmp_path / name}")


@pytest.mark.parametrize(
    "url", ["host:8000", "http://host:8000", "http://host:8000/", "http://[::1]:8000", "https://host:8443"]
)
def test_addresses_are_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "host:", "host:port", ":8000", "grpc://host:8001", "http://host:8000/v2"),
        *(
            "http://host:8000?ca=ca.pem",
            "https://host:8000?cacert=ca.pem",
            "https://host:8000?key=k",
            "https://host:8000?ca",
        ),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=rf"found '{re.escape(url)}', expected host:port, http://host:port or https"):
        check_url(url)


@pytest.mark.parametrize(
    ("version", "is_sound"),
    [
        ("2.51.0", False),
        ("2.58.0", False),
        ("2.59.0", True),
        ("2.60.1", True),
        ("3.0.0", True),
        ("", False),
        ("x", False),
    ],
)
def test_servers_that_crash_by_cancelled_grpc_calls_are_told_by_their_version(version: str, is_sound: bool) -> None:
    assert (fault_of(version) == "") == is_sound
    assert is_sound or f"tritonserver {version} is for demos and tests" in fault_of(version)
