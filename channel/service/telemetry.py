"""Metrics of a worker: what its answers hold, what it serves, and what it works with."""

from __future__ import annotations

from collections.abc import Callable

from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.query import source_name
from serendipity.channel.service.process_telemetry import LATENCY_BUCKETS, CallTelemetry
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2

_DAY = 86_400.0
_AGE_BUCKETS = tuple(days * _DAY for days in (0.25, 0.5, 1, 2, 3, 5, 7, 8, 10, 14, 21, 30))
_SWAP_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_STAGES = ("total", "hydrate", "user_tower", "sources", "rank")
_NOVEL = FEATURE_NAMES.index("novel")
"""Rank feature that is 1 for novel candidates."""


class Telemetry(CallTelemetry):
    """The metrics of one worker."""

    def __init__(self) -> None:
        super().__init__()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        stage_seconds = histogram("stage_seconds", "Time of a stage of Recall.", LATENCY_BUCKETS, "stage")
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
        self._degraded_reasons = counter(
            "degraded_reasons", "Degraded answers by the part that was down; one may have several.", "part"
        )
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
        for outcome in ("opened", "refused"):
            # From 0 on, so that the first is an increase.
            self._swaps.labels(outcome)
        self._swap_seconds = histogram("snapshot_swap_seconds", "Time to open a snapshot.", _SWAP_BUCKETS)
        self._availability = gauge("availability_generation", "Generation of the availability overlay in use.")
        self._tower_calls = histogram(
            "user_tower_call_seconds", "Time of a call of the user tower on Triton.", LATENCY_BUCKETS, "status"
        )
        self._tower_held_back = gauge("user_tower_held_back", "1 while the user tower is not called (circuit breaker).")
        self._stores = gauge("store_open", "1 while a store of the host's state is open.", "store")

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
            for part in {reason.partition(":")[0] for reason in response.degraded_reasons}:
                self._of(self._degraded_reasons, part).inc()
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

    def recorded(self, recorded: channel_pb2.RecordFeedbackResponse) -> None:
        """Count what became of feedback events."""
        self._feedback.labels("accepted").inc(recorded.accepted)
        self._feedback.labels("duplicate").inc(recorded.duplicates)
        self._feedback.labels("rejected").inc(len(recorded.rejected))

    def serving_log_dropped(self, count: int) -> None:
        """Count answers the serving log lost."""
        self._serving_log_drops.inc(count)

    def snapshot_served(self, versions: channel_pb2.Versions, seconds: float) -> None:
        """Note which snapshot is served from now on. seconds: that it took to open it."""
        self._snapshot.clear()
        self._snapshot.labels(versions.snapshot, versions.user_tower, versions.merge).set(1)
        self._events_until.set(versions.events_until.seconds)
        self._swaps.labels("opened").inc()
        self._swap_seconds.observe(seconds)

    def snapshot_refused(self) -> None:
        """Count a snapshot that could not be opened."""
        self._swaps.labels("refused").inc()

    def availability_generation(self, generation: int) -> None:
        """Note the overlay in use."""
        self._availability.set(generation)

    def tower_called(self, status: str, seconds: float) -> None:
        """Measure a call of the user tower, whether or not anybody still waited for it."""
        self._of(self._tower_calls, status).observe(seconds)

    def watch_tower(self, is_held_back: Callable[[], bool]) -> None:
        """Tell, when asked, whether the user tower is left alone."""
        self._tower_held_back.set_function(is_held_back)

    def watch_store(self, name: str, is_open: Callable[[], bool]) -> None:
        """Tell, when asked, whether a store of the host's state is open."""
        self._stores.labels(name).set_function(is_open)
