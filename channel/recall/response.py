"""An answer's columns → the RecallResponse that goes over the wire."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from serendipity.channel.recall.query import Source
from serendipity.channel.recall.recalled import Recalled
from serendipity.v1 import channel_pb2


def to_response(recalled: Recalled, explain: bool) -> channel_pb2.RecallResponse:
    """Build the response. explain: whether reasons are part of it (the serving log always wants them)."""
    response = channel_pb2.RecallResponse(
        recall_id=recalled.recall_id,
        item_ids=recalled.item_ids,
        scores=recalled.scores.tolist(),
        sources=recalled.sources.tolist(),
        relevance=recalled.relevance.tolist(),
        unexpectedness=recalled.unexpectedness.tolist(),
        category_indexes=recalled.category_indexes.tolist(),
        categories=recalled.categories,
        rank_features=channel_pb2.FeatureMatrix(
            names=recalled.feature_names, num_rows=len(recalled), values=recalled.features.ravel().tolist()
        ),
        degraded=recalled.degraded,
        degraded_reasons=recalled.degraded_reasons,
        titles=recalled.titles,
    )
    if explain:
        _add_reasons(response, recalled)
    for warning in recalled.warnings:
        response.warnings.add(
            code=channel_pb2.WarningCode.ValueType(warning.code),
            field=warning.field,
            message=warning.message,
            count=warning.count,
        )
    for outcome in recalled.source_outcomes:
        response.source_statuses.add(
            source=channel_pb2.Source.ValueType(outcome.source),
            state=channel_pb2.SourceState.ValueType(outcome.state),
            requested=outcome.requested,
            found=outcome.found,
            returned=outcome.returned,
            elapsed=_duration(outcome.elapsed),
            novel_category_key=channel_pb2.NovelCategoryKey.ValueType(
                recalled.novel_category_key if outcome.source is Source.GROUP else 0
            ),
        )
    for removal in recalled.filter_outcomes:
        response.filter_counts.add(filter=removal.name, kept=removal.kept, removed=removal.removed)
    response.versions.snapshot = recalled.versions.snapshot
    response.versions.user_tower = recalled.versions.user_tower
    response.versions.calibration = recalled.versions.calibration
    response.versions.events_until.seconds = recalled.versions.events_until
    response.versions.group_model_id = recalled.versions.group_model_id
    response.versions.generation = recalled.versions.generation
    for name in ("total", "hydrate", "user_tower", "sources", "rank"):
        getattr(response.timings, name).CopyFrom(_duration(getattr(recalled.times, name)))
    return response


def _add_reasons(response: channel_pb2.RecallResponse, recalled: Recalled) -> None:
    response.reason_indexes.extend(recalled.reason_indexes.tolist())
    response.all_reason_indexes.extend(recalled.all_reason_indexes.tolist())
    response.all_reason_offsets.extend(recalled.all_reason_offsets.tolist())
    for reason in recalled.reasons:
        response.reasons.add(
            source=channel_pb2.Source.ValueType(reason.source),
            seed=reason.seed,
            core_demand=reason.core_demand,
            latent_interest=reason.latent_interest,
            text=reason.text,
            weight=reason.weight,
        )


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
