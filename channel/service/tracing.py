"""Traces by OpenTelemetry: off, and not even imported, unless its own environment variables ask for them.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317 serendip serve …       with the extra `otel`

A host's call is a span, of the trace that its metadata names (`traceparent`), and what its answers took is told by
spans within. Several calls may be answered together, by one call of Triton, which carries the trace of the most urgent.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import grpc
import structlog

from serendipity.channel.recall.query import source_name
from serendipity.channel.service.process_telemetry import Call
from serendipity.v1 import channel_pb2

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ASKED_FOR = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
_STAGES = ("hydrate", "user_tower", "sources", "rank")
_FAULTS = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"})
"""Statuses that are the server's fault, by OpenTelemetry's conventions for gRPC."""
_FLUSH_MS = 2_000

_log = structlog.stdlib.get_logger(__name__)


def open_tracing(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Export spans as the variables say, none where they say nothing, or where the packages are missing."""
    if not any(environment.get(name) for name in _ASKED_FOR) or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        _log.error("no traces", missing=error.name, install="pip install 'serendipity-recall[otel]'")
        return None
    # Both read their variables: sampler, headers, timeouts, how much is sent at once.
    provider = TracerProvider(resource=Resource({SERVICE_NAME: "serendipity"}).merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """Makes the spans of one process. provider: of OpenTelemetry's SDK, ended by `close`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, StatusCode, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("serendipity")
        self._propagator = TraceContextTextMapPropagator()
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR
        self._current = get_current_span

    @contextlib.contextmanager
    def call(self, call: Call, metadata: Mapping[str, str | bytes]) -> Iterator[None]:
        """Trace a call; log lines written meanwhile name the trace."""
        parent = self._propagator.extract({key: value for key, value in metadata.items() if isinstance(value, str)})
        with self._tracer.start_as_current_span(
            call.method,
            parent,
            self._server,
            {"rpc.system": "grpc", "rpc.method": call.method},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            trace_id = f"{span.get_span_context().trace_id:032x}"
            try:
                with structlog.contextvars.bound_contextvars(trace_id=trace_id):
                    yield
            finally:
                span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[call.code].value[0])
                if call.code in _FAULTS:
                    span.set_status(self._error, call.error or call.code)

    def answered(self, response: channel_pb2.RecallResponse) -> None:
        """Tell what an answer took, stage by stage up to now; what is missing from its total it waited for its turn."""
        if not self._current().is_recording():
            return
        durations = [getattr(response.timings, stage).ToNanoseconds() for stage in _STAGES]
        at = time.time_ns() - sum(durations)
        for stage, took in zip(_STAGES, durations, strict=True):
            span = self._tracer.start_span(stage, start_time=at)
            if stage == "sources":
                for status in response.source_statuses:
                    name = source_name(status.source)
                    state = channel_pb2.SourceState.Name(status.state).removeprefix("SOURCE_STATE_").lower()
                    span.set_attributes({f"{name}.state": state, f"{name}.found": status.found})
            at += took
            span.end(at)

    def headers(self) -> str:
        """Write the trace of what is being worked on as lines of an HTTP request's head."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return "".join(f"{name}: {value}\r\n" for name, value in carrier.items())

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()
