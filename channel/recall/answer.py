"""Chosen items → the columns of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from serendipity.channel.errors import StoreError
from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.recall.reasons import InternedReasons
from serendipity.channel.recall.recalled import FilterOutcome, Recalled, SourceOutcome, StageTimes, Versions
from serendipity.channel.recall.scorer import FEATURE_NAMES, Scored, rank_features
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.novelty import unexpectedness


def compose(
    recall_id: str,
    chosen: Scored,
    reasons: InternedReasons,
    user: Hydrated,
    snapshot: Snapshot,
    *,
    source_outcomes: tuple[SourceOutcome, ...],
    filter_outcomes: tuple[FilterOutcome, ...],
    degraded_reasons: tuple[str, ...],
    user_tower: str,
) -> Recalled:
    """Lay the chosen items, best first, out as an answer; its times are filled in by whoever took them."""
    recent = user.clicks.items[user.clicks.items > 0] - 1
    vectors = snapshot.vectors.vectors
    surprise = unexpectedness(vectors[chosen.rows], vectors[recent])
    item_ids = tuple(snapshot.item_ids[row] for row in chosen.rows.tolist())
    numbers, category_indexes = np.unique(chosen.categories, return_inverse=True)
    return Recalled(
        recall_id=recall_id,
        item_ids=item_ids,
        scores=chosen.scores,
        sources=chosen.sources,
        relevance=chosen.raw,
        unexpectedness=surprise,
        category_indexes=category_indexes.astype(np.int32),
        categories=tuple(snapshot.category_names[number - 1] for number in numbers.tolist()),
        reasons=reasons.reasons,
        reason_indexes=reasons.indexes,
        all_reason_indexes=reasons.all_indexes,
        all_reason_offsets=reasons.all_offsets,
        feature_names=FEATURE_NAMES,
        features=rank_features(chosen, surprise, user.interests.weights, user.novel_categories),
        warnings=user.warnings,
        source_outcomes=tuple(
            replace(outcome, returned=int((chosen.sources == outcome.source).sum())) for outcome in source_outcomes
        ),
        filter_outcomes=filter_outcomes,
        degraded_reasons=degraded_reasons,
        versions=_versions(snapshot, user, user_tower),
        times=StageTimes(),
        titles=_titles(item_ids, snapshot) if user.query.explain else (),
        interests_age=max(0.0, user.query.now - user.interests.generated_at) if len(user.interests) else None,
        interests_origin=user.interests.origin.name.lower(),
        interests_freshness=user.interests.freshness.name.lower(),
        novel_category_key=user.novel_categories.key,
        forgotten=user.forgotten,
    )


def _versions(snapshot: Snapshot, user: Hydrated, user_tower: str) -> Versions:
    versions = replace(snapshot.versions, user_tower=user_tower)
    novel = user.novel_categories
    return replace(versions, generation=novel.generation) if len(novel) else versions


def _titles(item_ids: Sequence[str], snapshot: Snapshot) -> tuple[str, ...]:
    """Read titles for a person; an item whose record cannot be read goes without rather than failing the answer."""
    titles = []
    for item_id in item_ids:
        try:
            stored = snapshot.items.read(item_id)
        except StoreError:
            stored = None
        titles.append(stored.title if stored is not None else "")
    return tuple(titles)
