"""Metrics that every process of the service has, and those of the supervisor.

Every process has a registry and a port of its own, so that a scrape reaches a known process, counters restart with it
as Prometheus expects, and no shared directory has to be swept. Sums over processes are the query's. Ports from
`metrics_port` on: the workers' in the order of their numbers, the near-line process's, the supervisor's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from serendipity.channel.service.logs import LineHandler

LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)

_RESTART_CAUSES = ("died", "hung", "not_started")

_log = structlog.stdlib.get_logger(__name__)

_Metric = TypeVar("_Metric", Counter, Histogram)


@dataclass
class Call:
    """One gRPC call being measured; whoever fails it sets its code, and the kind of its error where it is refused."""

    method: str
    code: str = "OK"
    error: str = ""


class ProcessTelemetry:
    """Memory, open files and CPU time of this process, and the log lines that it lost.

    metrics_port: where they are served, 0: nowhere.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics_port = 0
        ProcessCollector(registry=self.registry)
        self.registry.register(_LogLines())

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve the metrics over HTTP, at a free port for 0, until what is returned is called.

        A port that is taken is logged, and must not keep a process from its work.
        """
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            _log.error("metrics not served", address=f"{host}:{port}", error=str(error))
            return lambda: None
        self.metrics_port = int(server.server_port)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return close

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"serendipity_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"serendipity_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"serendipity_{name}", text, labels, buckets=buckets, registry=self.registry)


class CallTelemetry(ProcessTelemetry):
    """The same, and the gRPC calls that this process answers."""

    def __init__(self) -> None:
        super().__init__()
        self._children: dict[tuple[int, tuple[str, ...]], Any] = {}
        self._requests = self._counter("requests", "Calls by method and status code.", "method", "code")
        self._arrivals = self._counter("requests_arrived", "Calls that came, whether or not they began.", "method")
        self._refusals = self._counter("refusals", "Calls refused, by the kind of error.", "method", "error")
        self._request_seconds = self._histogram(
            "request_seconds", "Time of a call at the edge.", LATENCY_BUCKETS, "method"
        )
        self._in_flight = self._gauge("requests_in_flight", "Calls being worked on.")

    def arrived(self, method: str) -> None:
        """Count a call that has come; `call` counts how it ends."""
        self._of(self._arrivals, method).inc()

    @contextlib.contextmanager
    def call(self, method: str) -> Iterator[Call]:
        """Measure one call."""
        call = Call(method)
        start = time.perf_counter()
        self._in_flight.inc()
        try:
            yield call
        finally:
            self._in_flight.dec()
            self._of(self._requests, method, call.code).inc()
            self._of(self._request_seconds, method).observe(time.perf_counter() - start)
            if call.error:
                self._of(self._refusals, method, call.error).inc()

    def _of(self, metric: _Metric, *labels: str) -> _Metric:
        """The child of a metric; looking it up here takes a tenth of the library's time."""
        child: _Metric | None = self._children.get((id(metric), labels))
        if child is None:
            child = self._children[id(metric), labels] = metric.labels(*labels)
        return child


class SupervisorTelemetry(CallTelemetry):
    """The metrics of the supervisor: its own calls, which are the admin service's, and the processes it keeps alive."""

    def __init__(self) -> None:
        super().__init__()
        self._up = self._gauge("process_up", "1 while the event loop of a process turns.", "process")
        self._restarts = self._counter("process_restarts", "Processes to be started again.", "process", "cause")

    def told_of(self, process: str) -> Callable[[str], None]:
        """Give what is told of a process: "up", or why it is to be started again (died, hung, not_started)."""
        up = self._up.labels(process)
        # From 0 on, so that the first restart is an increase.
        restarts = {cause: self._restarts.labels(process, cause) for cause in _RESTART_CAUSES}

        def tell(state: str) -> None:
            up.set(state == "up")
            if state != "up":
                restarts[state].inc()

        return tell


class _LogLines(Collector):
    """Counts the log lines that nobody read in time, or that the disk refused."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the count of this process."""
        lost = sum(each.lost for each in logging.getLogger().handlers if isinstance(each, LineHandler))
        yield CounterMetricFamily("serendipity_log_lines_dropped", "Log lines that were not written.", value=lost)
