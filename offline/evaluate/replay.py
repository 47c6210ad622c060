"""Asks the channel for many users as of a moment, and keeps the answers as columns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2

Recall = Callable[[channel_pb2.RecallRequest], channel_pb2.RecallResponse]
"""The real pipeline, in the same process or over gRPC."""

Advance = Callable[[int], None]
"""Told how many users were answered since it was last called."""

MAX_EXCLUDED = 10_000
"""Items one request may exclude."""

SOURCES = tuple(number for number in channel_pb2.Source.values() if number != channel_pb2.SOURCE_UNSPECIFIED)
"""Numbers of the sources a candidate may come from."""

STAGES = ("total", "hydrate", "user_tower", "sources", "rank")
"""Stages whose times an answer carries."""


class ReplayError(Exception):
    """An answer cannot belong to what is replayed: names the user, what was found and what was expected."""


@dataclass
class Replay:
    """Answers to n users, at most K = `count` candidates each, best first.

    users: [n] int64 user numbers. rows: [n, K] int64 item rows, −1 for none; scores, relevance: [n, K] float32;
    sources: [n, K] int8 numbers; found_by: [n, K, len(SOURCES)] bool, every source that found the item.
    degraded: [n] bool; seconds: [n] float64 as the caller saw it; stage_seconds:
    stage → [n]; source_states: source → SourceState name → answers; features: [n, K, F] float32 by feature_names, F = 0
    unless they were wanted.
    """

    count: int
    users: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    relevance: NDArray[np.float32]
    sources: NDArray[np.int8]
    found_by: NDArray[np.bool_]
    degraded: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    stage_seconds: Mapping[str, NDArray[np.float64]]
    source_states: dict[str, Counter[str]]
    degraded_reasons: Counter[str]
    snapshots: tuple[str, ...]
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]

    @classmethod
    def of_nothing(cls, users: NDArray[np.int64], count: int) -> Replay:
        """Make room for the answers to some users."""
        shape = (len(users), count)
        return cls(
            count=count,
            users=users,
            rows=np.full(shape, -1, np.int64),
            scores=np.zeros(shape, np.float32),
            relevance=np.zeros(shape, np.float32),
            sources=np.zeros(shape, np.int8),
            found_by=np.zeros((*shape, len(SOURCES)), np.bool_),
            degraded=np.zeros(len(users), np.bool_),
            seconds=np.zeros(len(users)),
            stage_seconds={stage: np.zeros(len(users)) for stage in STAGES},
            source_states={},
            degraded_reasons=Counter(),
            snapshots=(),
            features=np.zeros((*shape, 0), np.float32),
            feature_names=(),
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def returned(self) -> NDArray[np.int64]:
        """Candidates of each answer, [n]."""
        counts: NDArray[np.int64] = (self.rows >= 0).sum(axis=1)
        return counts

    def add(
        self, i: int, user_id: str, response: channel_pb2.RecallResponse, row_of: Mapping[str, int], *, features: bool
    ) -> None:
        """Put the answer to user i into place i. features: with its rank features. Raises ReplayError."""
        k = len(response.item_ids)
        if k > self.count:
            raise ReplayError(f"user {user_id!r}: found {k} candidates, expected at most the {self.count} asked for")
        try:
            self.rows[i, :k] = [row_of[item_id] for item_id in response.item_ids]
        except KeyError as error:
            raise ReplayError(
                f"user {user_id!r}: found item {error.args[0]!r}, expected items of the replayed catalogue "
                f"(snapshot {response.versions.snapshot!r})"
            ) from error
        self.scores[i, :k] = response.scores
        self.relevance[i, :k] = response.relevance
        self.sources[i, :k] = response.sources
        self.found_by[i, :k] = _found_by(response)
        if features and k:
            self.feature_names = tuple(response.rank_features.names)
            if not self.features.shape[2]:
                self.features = np.zeros((*self.rows.shape, len(self.feature_names)), np.float32)
            self.features[i, :k] = np.reshape(response.rank_features.values, (k, -1))
        self.degraded[i] = response.degraded
        self.degraded_reasons.update(response.degraded_reasons)
        self.snapshots = tuple(sorted({*self.snapshots, response.versions.snapshot}))
        for stage, seconds in self.stage_seconds.items():
            seconds[i] = getattr(response.timings, stage).ToTimedelta().total_seconds()
        for status in response.source_statuses:
            name = source_name(status.source)
            state = channel_pb2.SourceState.Name(status.state).removeprefix("SOURCE_STATE_").lower()
            self.source_states.setdefault(name, Counter())[state] += 1

    def rows_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Candidates of some of the users, in that order. Raises KeyError for a user who was not asked for."""
        place = {user: i for i, user in enumerate(self.users.tolist())}
        return self.rows[[place[user] for user in users.tolist()]]


@dataclass(frozen=True)
class ReplayRequests:
    """How users are asked for.

    count: candidates per user; exclude_own: leave out what the user clicked before the cut, since targets are new;
    sources: numbers of those that are asked; None: all; host: [n, h] item rows of each user that the host has already
    and excludes, −1 for none; features: keep the rank features.
    """

    count: int = 100
    exclude_own: bool = True
    sources: frozenset[int] | None = None
    host: NDArray[np.int64] | None = None
    surprise: float | None = None
    features: bool = False


def replay(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    users: NDArray[np.int64],
    cut: int,
    requests: ReplayRequests,
    *,
    advance: Advance = lambda _: None,
) -> Replay:
    """Ask `recall` for every user under STRICT, one by one, without request events: novelty is frozen at the cut.

    users: [n] user numbers, ascending; cut: Unix seconds the snapshot behind `recall` was built as of. Raises
    ReplayError for an answer with an item that is not in the catalogue, or with more candidates than asked for.
    """
    answers = Replay.of_nothing(users, requests.count)
    row_of = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    for i, user in enumerate(users.tolist()):
        request = channel_pb2.RecallRequest(
            user_id=histories.user_ids[user],
            count=requests.count,
            novelty_policy=channel_pb2.NOVELTY_POLICY_STRICT,
            surprise=requests.surprise,
            exclude_item_ids=_excluded(requests, i, histories, catalogue, user, cut),
            source_quotas=_quotas(requests),
        )
        start = time.perf_counter()
        response = recall(request)
        answers.seconds[i] = time.perf_counter() - start
        answers.add(i, request.user_id, response, row_of, features=requests.features)
        advance(1)
    return answers


def hits(answers: Replay, histories: Histories, cut: int, until: int) -> NDArray[np.bool_]:
    """Tell of every candidate whether the user clicked the item in [cut, until): [n, K], False where there is none."""
    keys = answers.users[:, None] * (1 << 32) + answers.rows
    found: NDArray[np.bool_] = np.isin(keys, click_keys(histories, cut, until)) & (answers.rows >= 0)
    return found


def click_keys(histories: Histories, cut: int, until: int) -> NDArray[np.int64]:
    """Distinct user · 2³² + row of every click in [cut, until)."""
    chosen = (histories.times >= cut) & (histories.times < until) & (histories.items > 0)
    keys: NDArray[np.int64] = np.unique(
        histories.users[chosen].astype(np.int64) * (1 << 32) + histories.items[chosen] - 1
    )
    return keys


def source_name(source: int) -> str:
    """Name of a source as in rank features and reports, e.g. "interest"."""
    return channel_pb2.Source.Name(source).removeprefix("SOURCE_").lower()


def _found_by(response: channel_pb2.RecallResponse) -> NDArray[np.bool_]:
    """Read from the rank features which sources found each candidate; its own source always did."""
    k = len(response.item_ids)
    names = list(response.rank_features.names)
    values = np.array(response.rank_features.values, np.float32).reshape(k, len(names)) if k and names else None
    found = np.zeros((k, len(SOURCES)), np.bool_)
    for column, source in enumerate(SOURCES):
        found[:, column] = np.array(response.sources) == source
        feature = f"{source_name(source)}_reciprocal_rank"
        if values is not None and feature in names:
            found[:, column] |= values[:, names.index(feature)] > 0
    return found


def _quotas(requests: ReplayRequests) -> list[channel_pb2.SourceQuota]:
    """Ask nothing of the other sources, and of those that are asked as much as ever."""
    return [
        channel_pb2.SourceQuota(source=channel_pb2.Source.Name(source), max_count=0)
        for source in SOURCES
        if requests.sources is not None and source not in requests.sources
    ]


def _excluded(
    requests: ReplayRequests, i: int, histories: Histories, catalogue: Catalogue, user: int, cut: int
) -> list[str]:
    """Ids of what the host has already, then of what the user clicked before the cut, the latest first."""
    rows = [] if requests.host is None else requests.host[i][requests.host[i] >= 0].tolist()
    if requests.exclude_own:
        start = int(histories.offsets[user])
        items = histories.items[start : start + histories.count_before(user, cut)][::-1]
        rows += (items[items > 0] - 1).tolist()
    return [catalogue.item_ids[row] for row in list(dict.fromkeys(rows))[:MAX_EXCLUDED]]
