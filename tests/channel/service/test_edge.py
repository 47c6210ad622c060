"""The edge: how calls end that nobody foresaw, or that nobody waits for any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
import structlog

from serendipity.channel.errors import Overloaded
from serendipity.channel.service.edge import Admit, Edge
from serendipity.channel.service.server import SERVICE
from serendipity.channel.service.telemetry import Telemetry
from serendipity.v1 import channel_pb2, channel_pb2_grpc


class Behind(channel_pb2_grpc.SerendipityChannelServicer):
    """A servicer behind the real edge: fails, or waits for ever."""

    def __init__(self, error: Exception | None) -> None:
        self.telemetry = Telemetry()
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self._error = error

    async def Recall(  # noqa: N802
        self, _request: channel_pb2.RecallRequest, _: grpc.aio.ServicerContext
    ) -> channel_pb2.RecallResponse:
        if self._error:
            raise self._error
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return channel_pb2.RecallResponse()

    def counted(self, code: str) -> float | None:
        return self.telemetry.registry.get_sample_value(
            "serendipity_requests_total", {"method": "Recall", "code": code}
        )


@contextlib.asynccontextmanager
async def serving(behind: Behind, admit: Admit | None = None) -> AsyncIterator[str]:
    server = grpc.aio.server()
    Edge(behind.telemetry).add_service(server, SERVICE, behind, {"Recall": admit} if admit else {})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_an_unforeseen_error_is_told_by_its_request_id_only() -> None:
    behind = Behind(RuntimeError("the password is 1234"))
    async with serving(behind) as address, grpc.aio.insecure_channel(address) as channel:
        stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Recall(channel_pb2.RecallRequest(), metadata=(("x-request-id", "r-2"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "r-2" in str(caught.value.details())
    assert "password" not in str(caught.value.details())
    assert behind.counted("INTERNAL") == 1.0
    assert "request_id" not in structlog.contextvars.get_contextvars()


async def test_a_call_that_is_not_admitted_is_refused_before_it_is_read() -> None:
    def admit(_: float | None) -> None:
        raise Overloaded("busy", 0.2)

    behind = Behind(None)
    async with serving(behind, admit) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/Recall")(b"no request at all", wait_for_ready=True)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("grpc-retry-pushback-ms", "200") in tuple(caught.value.trailing_metadata() or ())
    assert behind.counted("RESOURCE_EXHAUSTED") == 1.0
    assert not behind.begun.is_set()


async def test_a_call_without_a_message_is_refused_as_such() -> None:
    behind = Behind(None)
    async with serving(behind) as address, grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_unary(f"/{SERVICE}/Recall")(wait_for_ready=True)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "found no message" in str(caught.value.details())


async def cut_off(seconds: float) -> Behind:
    """Let a call reach its deadline; its server is returned once done with it, or not having begun it at all."""
    behind = Behind(None)
    async with serving(behind) as address, grpc.aio.insecure_channel(address) as channel:
        stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Recall(channel_pb2.RecallRequest(), timeout=seconds, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if behind.begun.is_set():
            async with asyncio.timeout(10):
                await behind.ended.wait()
    return behind


async def test_a_call_cut_off_by_its_deadline_is_counted_as_such() -> None:
    seconds = 0.2
    while not (behind := await cut_off(seconds)).begun.is_set():
        # On a busy machine the deadline may pass before the server hears of the call.
        seconds *= 2
    assert behind.counted("DEADLINE_EXCEEDED") == 1.0


async def test_a_call_its_caller_gave_up_is_counted_as_cancelled() -> None:
    behind = Behind(None)
    async with serving(behind) as address, grpc.aio.insecure_channel(address) as channel:
        stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Recall(channel_pb2.RecallRequest(), timeout=60.0, wait_for_ready=True)
        async with asyncio.timeout(10):
            await behind.begun.wait()
            call.cancel()
            await behind.ended.wait()
    assert behind.counted("CANCELLED") == 1.0
