"""Metrics of the near-line process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.housekeeping import census
from serendipity.channel.nearline.loop import BatchDone
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.service.process_telemetry import ProcessTelemetry
from serendipity.channel.snapshot.snapshot import Snapshot

_BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_log = structlog.stdlib.get_logger(__name__)


class NearlineTelemetry(ProcessTelemetry):
    """The metrics of the near-line process. clock: Unix seconds."""

    def __init__(self, store: NearlineStore, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._seconds = self._histogram(
            "nearline_batch_seconds", "Time of a batch, from what is known to the records.", _BATCH_BUCKETS, "kind"
        )
        self._failures = self._counter("nearline_failures", "Batches that could not be done.", "kind", "error")
        self._model = self._gauge("nearline_model_info", "1 for what is worked with.", "kind", "snapshot", "model")
        self.registry.register(_QueueCollector(store, clock))

    def done(self, kind: Kind, done: BatchDone) -> None:
        """Count a batch."""
        self._seconds.labels(kind).observe(done.seconds)
        _log.info("batch done", kind=kind, asked=done.asked, seconds=round(done.seconds, 3), **done.ends, **done.counts)

    def failed(self, kind: Kind, error: Exception) -> None:
        """Count a batch that could not be done."""
        self._failures.labels(kind, type(error).__name__).inc()

    def serves(self, snapshot: Snapshot) -> None:
        """Note which snapshot, and which models of it, are worked with from now on."""
        llms = snapshot.coevolution
        models = {
            Kind.INTERESTS: snapshot.interest_gpt,
            Kind.LISTS: f"{llms.novelty_model_name} and {llms.relevance_model_name}" if llms else "",
        }
        self._model.clear()
        for kind, model in models.items():
            self._model.labels(kind, snapshot.version, model).set(1)


class _QueueCollector(Collector):
    """Counts the queues when it is asked for: in the thread that answers the scrape."""

    def __init__(self, store: NearlineStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield depth, age, records and totals of each kind; nothing while the store cannot be read."""
        try:
            counted = {kind: census(self._store, kind) for kind in Kind}
        except StateUnavailable:
            return
        depth = GaugeMetricFamily("serendipity_nearline_queue", "Entries by state.", labels=["kind", "state"])
        age = GaugeMetricFamily(
            "serendipity_nearline_oldest_seconds", "Time for which the next entry has waited.", labels=["kind"]
        )
        records = GaugeMetricFamily(
            "serendipity_nearline_records", "Users with near-line interests, and lists.", labels=["kind"]
        )
        totals = CounterMetricFamily(
            "serendipity_nearline_events", "What has happened since the store was made.", labels=["kind", "event"]
        )
        for kind, count in counted.items():
            for state in ("ready", "delayed"):
                depth.add_metric([kind, state], getattr(count, state))
            age.add_metric([kind], self._clock() - count.next_since if count.next_since else 0.0)
            records.add_metric([kind], count.records)
            for event, total in count.totals.items():
                totals.add_metric([kind, event], total)
        yield from (depth, age, records, totals)
