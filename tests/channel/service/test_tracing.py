"""Traces: a span for each call and what its answers took, in the host's trace; off unless they are asked for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serendipity.channel.service import worker as workers
from serendipity.channel.service.process_telemetry import Call
from serendipity.channel.service.tracing import Tracing, open_tracing
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import channel_pb2_grpc
from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings, service
from tests.fixtures.small_world import SmallWorld

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "a"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_nothing_is_traced_that_is_not_asked_for(variables: dict[str, str]) -> None:
    assert open_tracing(variables) is None


def test_a_package_that_is_missing_is_said_and_keeps_nobody_from_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with structlog.testing.capture_logs() as lines:
        assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert [line["event"] for line in lines] == ["no traces"]


@pytest.fixture
async def stub(
    small_world: SmallWorld, tmp_path: Path, tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[channel_pb2_grpc.SerendipityChannelStub]:
    """A stub of a worker that traces."""
    monkeypatch.setattr(workers, "open_tracing", lambda: tracing)
    publish(tmp_path, copy_snapshot(small_world, tmp_path / "snapshots", "first").name)
    async with (
        service(server_settings(tmp_path), channel_settings()) as (_, worker),
        grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel,
    ):
        yield channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]


async def test_a_call_is_a_span_of_the_hosts_trace_with_its_stages_within(
    stub: channel_pb2_grpc.SerendipityChannelStub, exporter: InMemorySpanExporter
) -> None:
    request = pb.RecallRequest(user_id="nobody", count=5)
    answer = await stub.Recall(request, metadata=(("traceparent", TRACEPARENT),), timeout=30)
    async with asyncio.timeout(30):
        while "Recall" not in by_name(exporter):
            await asyncio.sleep(0.01)
    spans = by_name(exporter)
    call = spans.pop("Recall")
    assert call.parent is not None
    assert (f"{call.parent.span_id:016x}", f"{call.context.trace_id:032x}") == (PARENT, TRACE)
    assert call.attributes == {"rpc.system": "grpc", "rpc.method": "Recall", "rpc.grpc.status_code": 0}
    assert call.status.is_unset
    assert set(spans) == {"hydrate", "user_tower", "sources", "rank"}
    for name, span in spans.items():
        assert span.parent is not None
        assert span.parent.span_id == call.context.span_id
        assert (span.end_time or 0) - (span.start_time or 0) == getattr(answer.timings, name).ToNanoseconds()
    found = {status.source: status.found for status in answer.source_statuses}
    assert spans["sources"].attributes["collaborative.found"] == found[pb.SOURCE_COLLABORATIVE]


async def test_a_call_that_is_the_callers_fault_is_no_error(
    stub: channel_pb2_grpc.SerendipityChannelStub, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Recall(pb.RecallRequest(user_id="", count=5), timeout=30)
    async with asyncio.timeout(30):
        while "Recall" not in by_name(exporter):
            await asyncio.sleep(0.01)
    span = by_name(exporter)["Recall"]
    assert span.parent is None
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert span.status.is_unset


def test_triton_and_log_lines_are_told_the_trace(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    assert tracing.headers() == ""
    call = Call("Recall")
    with tracing.call(call, {"traceparent": TRACEPARENT, "key-bin": b"\x00"}):
        own = tracing.headers()
        assert structlog.contextvars.get_contextvars()["trace_id"] == TRACE
        call.code, call.error = "INTERNAL", "ValueError"
    (span,) = exporter.get_finished_spans()
    assert own == f"traceparent: 00-{TRACE}-{span.context.span_id:016x}-01\r\n"
    assert (span.status.is_ok, span.status.description) == (False, "ValueError")
    assert "trace_id" not in structlog.contextvars.get_contextvars()


async def test_spans_reach_a_collector_by_the_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def export(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
        await received.put(request)
        return b""

    path = "opentelemetry.proto.collector.trace.v1.TraceService"
    collector = grpc.aio.server()
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    collector.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(path, handlers),))
    port = collector.add_insecure_port("127.0.0.1:0")
    await collector.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    opened = open_tracing()
    assert opened is not None
    with opened.call(Call("Recall"), {}):
        pass
    await asyncio.to_thread(opened.close)
    sent = await asyncio.wait_for(received.get(), 30)
    await collector.stop(None)
    assert b"Recall" in sent
    assert b"serendipity" in sent
