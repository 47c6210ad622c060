"""Metrics of the service.

Every worker has a registry and a port of its own (`metrics_port` + worker number), so that a scrape reaches a known
process, counters restart with it as Prometheus expects, and no shared directory has to be swept. Sums over workers are
the query's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.query import source_name
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2

_LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
_DAY = 86_400.0
_AGE_BUCKETS = tuple(days * _DAY for days in (0.25, 0.5, 1, 2, 3, 5, 7, 8, 10, 14, 21, 30))
_STAGES = ("total", "hydrate", "user_tower", "sources", "rank")
_NOVEL = FEATURE_NAMES.index("novel")
"""Rank feature that is 1 for novel candidates."""


_log = structlog.stdlib.get_logger(__name__)

_Metric = TypeVar("_Metric", Counter, Histogram)


@dataclass
class Call:
    """One gRPC call being measured; whoever fails it sets its code."""

    method: str
    code: str = "OK"


class Telemetry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[int, tuple[str, ...]], Any] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"serendipity_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"serendipity_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"serendipity_{name}", text, labels, buckets=buckets, registry=self.registry)

        self._requests = counter("requests", "Calls by method and status code.", "method", "code")
        self._arrivals = counter("requests_arrived", "Calls that came, whether or not they began.", "method")
        self._request_seconds = histogram("request_seconds", "Time of a call at the edge.", _LATENCY_BUCKETS, "method")
        self._in_flight = gauge("requests_in_flight", "Calls being worked on.")
        stage_seconds = histogram("stage_seconds", "Time of a stage of Recall.", _LATENCY_BUCKETS, "stage")
        self._stages = {stage: stage_seconds.labels(stage) for stage in _STAGES}
        self._candidates = counter(
            "candidates", "Candidates by source: found by it, returned with it.", "source", "step"
        )
        self._source_states = counter("source_states", "How the sources fared.", "source", "state")
        self._novel = counter("novel_candidates", "Returned candidates that are novel; over returned ones, the rate.")
        self._answers = counter("answers", "Answers of Recall and RecallBatch.")
        self._short = counter("short_answers", "Answers with fewer candidates than asked for.")
        self._shortfalls = counter("shortfalls", "Short answers by cause; one may have several.", "cause")
        self._interests_age = histogram(
            "interests_age_seconds", "Age of the cached interests an answer was searched by.", _AGE_BUCKETS
        )
        self._interests = counter(
            "interests", "Answers by where their interests come from and how fresh these are.", "origin", "freshness"
        )
        self._novel_category_keys = counter(
            "novel_category_keys", "Answers by the key of the list that the group source answered from.", "key"
        )
        self._degraded = counter("degraded_answers", "Answers marked degraded.")
        self._removed = counter("removed_candidates", "Candidates removed by a filter.", "filter")
        self._warnings = counter("warnings", "Warnings in answers.", "code")
        self._feedback = counter("feedback_events", "Feedback events by outcome.", "outcome")
        self._serving_log_drops = counter(
            "serving_log_dropped", "Answers the serving log lost: queue full, or disk refusing."
        )
        self._snapshot = gauge("snapshot_info", "1 for what is served.", "version", "user_tower", "merge")
        self._events_until = gauge(
            "snapshot_events_until_seconds", "Events up to here are in the snapshot (Unix time)."
        )
        self._swaps = counter("snapshot_swaps", "Snapshots opened or refused.", "outcome")
        self._availability = gauge("availability_generation", "Generation of the availability overlay in use.")

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

    def answered(self, answer: Answer) -> None:
        """Count one answer."""
        response, user = answer.response, answer.user
        self._answers.inc()
        if len(response.item_ids) < user.query.count:
            self._short.inc()
        for shortfall in response.shortfalls:
            cause = channel_pb2.ShortfallCause.Name(shortfall.cause).removeprefix("SHORTFALL_CAUSE_").lower()
            self._of(self._shortfalls, cause).inc()
        if response.degraded:
            self._degraded.inc()
        interests = user.interests
        self._of(self._interests, interests.origin.name.lower(), interests.freshness.name.lower()).inc()
        if len(interests):
            self._interests_age.observe(max(0.0, user.query.now - interests.generated_at))
        if key := user.novel_categories.key:
            name = channel_pb2.NovelCategoryKey.Name(key).removeprefix("NOVEL_CATEGORY_KEY_").lower()
            self._of(self._novel_category_keys, name).inc()
        for stage, observed in self._stages.items():
            observed.observe(getattr(response.timings, stage).nanos / 1e9 + getattr(response.timings, stage).seconds)
        for status in response.source_statuses:
            source = source_name(status.source)
            state = channel_pb2.SourceState.Name(status.state).removeprefix("SOURCE_STATE_").lower()
            self._of(self._source_states, source, state).inc()
            self._of(self._candidates, source, "found").inc(status.found)
            self._of(self._candidates, source, "returned").inc(status.returned)
        self._novel.inc(sum(response.rank_features.values[_NOVEL :: len(FEATURE_NAMES)]))
        for count in response.filter_counts:
            self._of(self._removed, count.filter).inc(count.removed)
        for warning in response.warnings:
            name = channel_pb2.WarningCode.Name(warning.code).removeprefix("WARNING_CODE_").lower()  # type: ignore[attr-defined]
            self._of(self._warnings, name).inc()

    def _of(self, metric: _Metric, *labels: str) -> _Metric:
        """The child of a metric; looking it up here takes a tenth of the library's time."""
        child: _Metric | None = self._children.get((id(metric), labels))
        if child is None:
            child = self._children[id(metric), labels] = metric.labels(*labels)
        return child

    def recorded(self, recorded: channel_pb2.RecordFeedbackResponse) -> None:
        """Count what became of feedback events."""
        self._feedback.labels("accepted").inc(recorded.accepted)
        self._feedback.labels("duplicate").inc(recorded.duplicates)
        self._feedback.labels("rejected").inc(len(recorded.rejected))

    def serving_log_dropped(self, count: int) -> None:
        """Count answers the serving log lost."""
        self._serving_log_drops.inc(count)

    def snapshot_served(self, versions: channel_pb2.Versions) -> None:
        """Note which snapshot is served from now on."""
        self._snapshot.clear()
        self._snapshot.labels(versions.snapshot, versions.user_tower, versions.merge).set(1)
        self._events_until.set(versions.events_until.seconds)
        self._swaps.labels("opened").inc()

    def snapshot_refused(self) -> None:
        """Count a snapshot that could not be opened."""
        self._swaps.labels("refused").inc()

    def availability_generation(self, generation: int) -> None:
        """Note the overlay in use."""
        self._availability.set(generation)

    def serve(self, host: str, port: int) -> MetricsServer:
        """Serve the metrics over HTTP; port 0 chooses a free one."""
        return MetricsServer(self.registry, host, port)


class MetricsServer:
    """Serves a registry's metrics until it is closed.

    port: the one bound; 0 where it is taken, which is logged, and must not keep a process from its work.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self.port = 0
        try:
            self._server, self._thread = start_http_server(port, host, registry)
            self.port = int(self._server.server_port)
        except OSError as error:
            _log.error("metrics not served", address=f"{host}:{port}", error=str(error))

    def close(self) -> None:
        """Stop serving."""
        if not self.port:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
