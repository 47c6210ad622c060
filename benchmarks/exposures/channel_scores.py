"""How the channel scores items that it is given: the way of a request, with every item asked for.

A request returns at most 1,000 candidates and merges each source's best alone, so a part of what was exposed would have
no score. Here the same functions run in the same order, every source is asked for as many items as there are, and the
scores of the exposed ones are picked: ranks within sources, features and merge model are those of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.exposures.log import ExposureLog
from serendipity.channel.deadline import Deadline
from serendipity.channel.recall.hydrate import hydrate
from serendipity.channel.recall.pool import UserVectors
from serendipity.channel.recall.query import parse_query
from serendipity.channel.recall.scorer import score
from serendipity.channel.recall.search import search
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import Lease, SnapshotHolder
from serendipity.channel.snapshot.snapshot import open_snapshot
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.evaluate.replay import Advance
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2

_SECONDS = 60.0


@dataclass(frozen=True)
class ChannelScores:
    """What the channel says of n exposures.

    scores: [n] float64, P(interaction within the horizon), −∞ for what an answer could not hold; features: [n, F]
    float32, columns FEATURE_NAMES, 0 there.
    """

    scores: NDArray[np.float64]
    features: NDArray[np.float32]


def channel_scores(
    snapshot: Path,
    tower: Path,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    log: ExposureLog,
    *,
    strict: bool,
    advance: Advance = lambda _: None,
) -> ChannelScores:
    """Score every exposure.

    snapshot: of a build as of a moment before the log; tower: its user_tower.onnx; strict: of novel categories alone,
    as requests are by default, else of all; user_ids, item_ids: what the log's numbers and rows stand for; advance:
    told of every user. Raises SnapshotUnavailable, TowerUnavailable.
    """
    found = ChannelScores(np.full(len(log), -np.inf), np.zeros((len(log), len(FEATURE_NAMES)), np.float32))
    policy = channel_pb2.NOVELTY_POLICY_STRICT if strict else channel_pb2.NOVELTY_POLICY_OFF
    # Settings of no environment: what is measured must not depend on it.
    asker = _Asker(ChannelSettings.model_construct(clock="snapshot"), LocalTower(tower))
    with closing(SnapshotHolder(open_snapshot(snapshot))) as holder, closing(asker), holder.acquire() as lease:
        rows = lease.snapshot.item_ids.rows_of(item_ids)
        bounds = np.flatnonzero(np.diff(log.users, prepend=-1, append=-1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            request = channel_pb2.RecallRequest(
                user_id=user_ids[log.users[start]], count=1, novelty_policy=policy, allow_repeats=True
            )
            asked = rows[log.rows[start:end]]
            everything = asker.scores(lease, request)
            found.scores[start:end] = everything.scores[asked]
            found.features[start:end] = everything.features[asked]
            advance(1)
    return found


class _Asker:
    """What it takes to go the way of a request."""

    def __init__(self, settings: ChannelSettings, tower: LocalTower) -> None:
        self._settings = settings
        self._tower = tower
        self._state = UserState()
        self._loop = asyncio.new_event_loop()

    def scores(self, lease: Lease, request: channel_pb2.RecallRequest) -> ChannelScores:
        """Score all items of the snapshot, by row, and last, for items it does not know, one more: −∞."""
        snapshot = lease.snapshot
        user = hydrate(lease, parse_query(request, snapshot.events_until + 1), self._state, self._settings)
        answer = self._tower.user_vectors(snapshot.tower_model, user.inputs, Deadline.after(_SECONDS))
        vectors = UserVectors(self._loop.run_until_complete(answer)[0, : 1 + len(user.interests)], fallback=False)
        everything = len(snapshot.item_ids)
        found = search(snapshot, user, vectors, everything)
        scored = score(found.pool, found.finds, user, snapshot.merge, everything)
        scores = np.full(everything + 1, -np.inf)
        features = np.zeros((everything + 1, len(FEATURE_NAMES)), np.float32)
        scores[scored.rows], features[scored.rows] = scored.scores, scored.features
        return ChannelScores(scores, features)

    def close(self) -> None:
        """Close the tower."""
        self._loop.run_until_complete(self._tower.close())
        self._loop.close()
