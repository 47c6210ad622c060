"""Chosen items → the answer: the message for the caller, and what the service notes of it besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serendipity.channel.errors import StoreError
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.reasons import Reasons
from serendipity.channel.recall.scorer import Scored
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2, records_pb2

_IN_SHADOW = ("recall_id", "degraded", "degraded_reasons", "versions", "timings")
"""What a caller gets of an answer that nobody is to be shown."""


@dataclass(frozen=True)
class Answer:
    """One answer. response: the message; user: whom it is for, with everything known at the time; without_tower:
    stored vectors stood in for the user tower."""

    response: channel_pb2.RecallResponse
    user: Hydrated
    without_tower: bool = False

    def to_record(self, time: float) -> records_pb2.ServingRecord:
        """Build the serving log's record: with reasons, and without the id of a user who is to be forgotten.

        time: Unix seconds.
        """
        query = self.user.query
        record = records_pb2.ServingRecord(
            user_id="" if self.user.forgotten else query.user_id,
            experiment_tag=query.experiment_tag,
            novelty_policy=channel_pb2.NoveltyPolicy.Name(query.novelty_policy),
            response=self.response,
            shadow=query.shadow,
        )
        record.time.FromNanoseconds(int(time * 1e9))
        return record

    def for_caller(self) -> channel_pb2.RecallResponse:
        """The message as the query asks for it: reasons go, unless they are asked for; a record is taken before."""
        if self.user.query.shadow:
            kept = {name: getattr(self.response, name) for name in _IN_SHADOW}
            return channel_pb2.RecallResponse(**kept)
        if self.user.query.explain:
            return self.response
        for name in ("reasons", "reason_indexes", "all_reason_indexes", "all_reason_offsets"):
            self.response.ClearField(name)
        return self.response


def compose(
    recall_id: str,
    chosen: Scored,
    reasons: Reasons,
    user: Hydrated,
    snapshot: Snapshot,
    *,
    source_statuses: Sequence[channel_pb2.SourceStatus],
    filter_counts: Sequence[channel_pb2.FilterCount],
    shortfalls: Sequence[channel_pb2.Shortfall],
    degraded_reasons: Iterable[str],
    user_tower: str,
) -> channel_pb2.RecallResponse:
    """Lay the chosen items, best first, out as a message; its times are filled in by whoever took them."""
    item_ids = snapshot.item_ids.of_rows(chosen.rows)
    numbers, category_indexes = np.unique(chosen.categories, return_inverse=True)
    why = [reason for reason in degraded_reasons if reason]
    for status in source_statuses:
        status.returned = int((chosen.sources == status.source).sum())
    response = channel_pb2.RecallResponse(
        recall_id=recall_id,
        item_ids=item_ids,
        scores=chosen.scores.tolist(),
        sources=chosen.sources.tolist(),
        relevance=chosen.raw.tolist(),
        unexpectedness=chosen.features[:, 0].tolist(),
        category_indexes=category_indexes.tolist(),
        categories=[snapshot.category_names[number - 1] for number in numbers.tolist()],
        reasons=reasons.reasons,
        reason_indexes=reasons.indexes.tolist(),
        all_reason_indexes=reasons.all_indexes.tolist(),
        all_reason_offsets=reasons.all_offsets.tolist(),
        rank_features=channel_pb2.FeatureMatrix(
            names=FEATURE_NAMES, num_rows=len(chosen), values=chosen.features.ravel().tolist()
        ),
        warnings=user.warnings,
        source_statuses=source_statuses,
        filter_counts=filter_counts,
        shortfalls=shortfalls,
        degraded=bool(why),
        degraded_reasons=why,
        versions=snapshot.versions,
        titles=[title_of(item_id, snapshot) for item_id in item_ids] if user.query.explain else (),
    )
    response.versions.user_tower = user_tower
    if len(user.novel_categories):
        response.versions.generation = user.novel_categories.generation
    return response


def title_of(item_id: str, snapshot: Snapshot) -> str:
    """Read a title for a person; an item whose record cannot be read goes without rather than failing the answer."""
    try:
        stored = snapshot.items.read(item_id)
    except StoreError:
        stored = None
    return stored.title if stored is not None else ""
