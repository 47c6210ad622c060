"""Metrics of the near-line process, and the small file that says how it fares."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serendipity import layout
from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.housekeeping import Cleared, census
from serendipity.channel.nearline.refresher import Refreshed
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.telemetry import MetricsServer

_BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class NearlineStatus:
    """How the near-line process fares.

    snapshot, model: what it refreshes with, empty for none; error: why nothing could be refreshed last, empty since it
    could; refreshed_at: end of the last batch, Unix seconds, 0 for none; metrics_port: 0 for nowhere.
    """

    pid: int
    snapshot: str = ""
    model: str = ""
    error: str = ""
    refreshed_at: float = 0.0
    metrics_port: int = 0


def read_status(path: Path) -> NearlineStatus | None:
    """Read the file; None if there is none, or none that can be read: no process is running."""
    try:
        return NearlineStatus(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class NearlineTelemetry:
    """The metrics of the near-line process.

    status_path: where its status is written, None: nowhere; clock: Unix seconds.
    """

    def __init__(
        self, store: NearlineStore, status_path: Path | None, pid: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.registry = new = CollectorRegistry()
        self._status_path = status_path
        self._clock = clock
        self.status = NearlineStatus(pid)
        self._entries = Counter(
            "serendipity_nearline_entries", "Entries that were tried, by outcome.", ["outcome"], registry=new
        )
        self._tokens = Counter(
            "serendipity_nearline_tokens", "Tokens that InterestGPT read and wrote.", ["kind"], registry=new
        )
        self._dropped = Counter(
            "serendipity_nearline_dropped_proposals",
            "Interests that InterestGPT named and that were not stored.",
            ["reason"],
            registry=new,
        )
        self._seconds = Histogram(
            "serendipity_nearline_batch_seconds",
            "Time of a batch, from the users' records to theirs.",
            buckets=_BATCH_BUCKETS,
            registry=new,
        )
        self._failures = Counter(
            "serendipity_nearline_failures", "Batches that could not be refreshed.", ["error"], registry=new
        )
        self._cleared = Counter("serendipity_nearline_cleared", "What housekeeping removed.", ["kind"], registry=new)
        self._model = Gauge(
            "serendipity_nearline_model_info", "1 for what is refreshed with.", ["snapshot", "model"], registry=new
        )
        new.register(_QueueCollector(store, clock))

    def refreshed(self, refreshed: Refreshed, model_name: str) -> None:
        """Count a batch."""
        for outcome, count in (*asdict(refreshed.settled).items(), ("forgotten", refreshed.forgotten)):
            self._entries.labels(outcome).inc(count)
        self._tokens.labels("prompt").inc(refreshed.prompt_tokens)
        self._tokens.labels("completion").inc(refreshed.completion_tokens)
        for reason, count in refreshed.dropped.items():
            self._dropped.labels(reason).inc(count)
        self._seconds.observe(refreshed.seconds)
        _log.info("interests refreshed", model=model_name, **asdict(refreshed))
        self._tell(replace(self.status, error="", refreshed_at=self._clock()))

    def failed(self, error: Exception) -> None:
        """Count a batch that could not be refreshed."""
        self._failures.labels(type(error).__name__).inc()
        self._tell(replace(self.status, error=str(error)))

    def serves(self, snapshot: str, model_name: str) -> None:
        """Note which snapshot and which InterestGPT are refreshed with from now on."""
        self._model.clear()
        self._model.labels(snapshot, model_name).set(1)
        self._tell(replace(self.status, snapshot=snapshot, model=model_name))

    def cleared(self, cleared: Cleared) -> None:
        """Count what housekeeping removed."""
        for kind, count in asdict(cleared).items():
            self._cleared.labels(kind).inc(count)

    def serve(self, host: str, port: int) -> MetricsServer:
        """Serve the metrics over HTTP; port 0 chooses a free one. Raises OSError when the port is taken."""
        server = MetricsServer(self.registry, host, port)
        self._tell(replace(self.status, metrics_port=server.port))
        return server

    def _tell(self, status: NearlineStatus) -> None:
        self.status = status
        if self._status_path is not None:
            layout.write_atomically(self._status_path, json.dumps(asdict(status)).encode())


class _QueueCollector(Collector):
    """Counts the queue when it is asked for: in the thread that answers the scrape."""

    def __init__(self, store: NearlineStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield depth, age and records; nothing while the store cannot be read."""
        try:
            counted = census(self._store)
        except StateUnavailable:
            return
        depth = GaugeMetricFamily("serendipity_nearline_queue", "Entries by state.", labels=["state"])
        for state in ("ready", "delayed", "parked"):
            depth.add_metric([state], getattr(counted, state))
        yield depth
        causes = GaugeMetricFamily(
            "serendipity_nearline_queue_causes", "Entries that are not parked, by cause.", labels=["cause"]
        )
        for cause, count in counted.by_cause.items():
            causes.add_metric([cause], count)
        yield causes
        age = self._clock() - counted.oldest if counted.oldest else 0.0
        yield GaugeMetricFamily("serendipity_nearline_oldest_seconds", "Age of the oldest entry not parked.", age)
        yield GaugeMetricFamily("serendipity_nearline_records", "Users with near-line interests.", counted.records)
