"""Replays held-out time through the real pipeline, and learns from it how candidates become one list.

    merge.json      what goes into the snapshot's manifest
    merge.onnx      the model; missing where there was too little to learn from
    report.json     what was found, by users that the model did not see

Users are halved, and each half is judged by the model of the other; the model that is served is of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from serendipity.layout import MERGE_MODEL, hash_of, write_atomically
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.controls import popularity
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.evaluate.measures import Judge as EvaluationJudge
from serendipity.offline.evaluate.reliability import Reliability, reliability
from serendipity.offline.evaluate.replay import SOURCES, Advance, Recall, Replay, ReplayRequests, hits, replay
from serendipity.offline.evaluate.significance import bootstrap_difference
from serendipity.offline.evaluate.source_worth import give_places
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.merge.config import MergeConfig
from serendipity.offline.merge.model import columns_read, fit_trees, to_onnx
from serendipity.rank_features import worth
from serendipity.v1 import channel_pb2, records_pb2

MERGE = "merge.json"
REPORT = "report.json"

_SEED = 20_240_601
_DEPTHS = (20, 100)
_UNEXPECTEDNESS = "unexpectedness"

_POPULARITY = 0.5
"""What the rank by popularity counts where too little can be learned: the sources learned from as little."""

_SURPRISES = tuple(step / 20 for step in range(21))


class OpenRecall(Protocol):
    """Opens the pipeline over a snapshot directory and an exported user tower.

    The pipeline's clock must be the snapshot's (now = events_until), or ages and interests would be those of another
    time.
    """

    def __call__(self, snapshot: Path, tower: Path) -> AbstractContextManager[Recall]:
        """Open it."""
        ...


@dataclass(frozen=True)
class SurprisePoint:
    """A setting of `surprise`: novel recall@20 and @100, hits weighted by felt serendipity at both
    (serendipity.offline.evaluate.unexpectedness), and mean unexpectedness of the first 20."""

    surprise: float
    recall: tuple[float, float]
    serendipity: tuple[float, float]
    unexpectedness: float


@dataclass(frozen=True)
class MergeReport:
    """What a replay came to. reliability: None where there is no model; fused, merged: novel recall@20 and @100 by
    fused ranks and by the model, at surprise 0; both None where nobody had a novel target."""

    users: int
    candidates: int
    positives: int
    reliability: Reliability | None
    fused: tuple[float, float] | None
    merged: tuple[float, float] | None
    curve: tuple[SurprisePoint, ...]


@dataclass(frozen=True)
class Merged:
    """What was learned. model: ONNX, None where there was too little to learn from."""

    spec: records_pb2.MergeSpec
    model: bytes | None
    report: MergeReport

    def write(self, directory: Path) -> None:
        """Write it below a directory."""
        text = json_format.MessageToJson(self.spec, preserving_proto_field_name=True, sort_keys=True)
        write_atomically(directory / MERGE, text.encode())
        if self.model is not None:
            write_atomically(directory / MERGE_MODEL, self.model)
        write_atomically(directory / REPORT, json.dumps(asdict(self.report), indent=2, allow_nan=False).encode())


def read_merge(directory: Path) -> tuple[records_pb2.MergeSpec, bytes | None]:
    """Read what `Merged.write` wrote."""
    spec = json_format.Parse((directory / MERGE).read_text(encoding="utf-8"), records_pb2.MergeSpec())
    return spec, (directory / MERGE_MODEL).read_bytes() if spec.id else None


def learn_merge(
    open_recall: OpenRecall,
    snapshot: Path,
    tower: Path,
    histories: Histories,
    catalogue: Catalogue,
    cut: int,
    until: int,
    *,
    config: MergeConfig,
    advance: Advance = lambda _: None,
) -> Merged:
    """Replay [cut, until), and learn from it.

    snapshot, tower: made of events before `cut` alone, the snapshot without a merge model; histories: up to `until`.
    Users are those who clicked in the period: P(interaction | recalled) is that of users who are there to be asked for.
    Items that a user clicked before are left out, as a host would.
    """
    users = active_users(histories, cut, until, config.max_users, _SEED)
    requests = ReplayRequests(config.count, surprise=0.0, features=True)
    with open_recall(snapshot, tower) as recall:
        strict = replay(recall, histories, catalogue, users, cut, requests, advance=advance)
    read = columns_read(strict.feature_names)
    names = [strict.feature_names[column] for column in read]
    present = strict.rows >= 0
    features, hit = strict.features[present][:, read], hits(strict, histories, cut, until)[present]
    owners = np.repeat(users, present.sum(axis=1))
    positives = int(hit.sum())
    spec = records_pb2.MergeSpec(horizon_days=(until - cut) / 86_400, num_candidates=len(hit), num_positives=positives)
    judge = _Judge(strict, HeldOut.between(histories, catalogue, cut, until), histories)
    fused = judge.recall(strict.scores)
    half = np.random.default_rng(_SEED).permutation(len(histories))[owners] % 2
    # Each half has to teach something, too.
    taught = all(0 < hit[half == one].sum() < (half == one).sum() for one in (0, 1))
    if min(positives, len(hit) - positives) < config.min_positives or not taught:
        spec.popularity = _POPULARITY
        report = MergeReport(len(users), len(hit), positives, None, fused, None, ())
        return Merged(spec, None, report)
    predicted = np.zeros(len(hit), np.float32)
    for one in (0, 1):
        trees = fit_trees(features[half != one], hit[half != one], names, config)
        predicted[half == one] = trees.predict_proba(features[half == one])[:, 1]
    model = to_onnx(fit_trees(features, hit, names, config), features)
    spec.id = hash_of([model])[:16]
    spec.features.extend(names)
    scores = np.zeros(strict.rows.shape, np.float32)
    scores[present] = predicted
    unexpectedness = strict.features[:, :, strict.feature_names.index(_UNEXPECTEDNESS)]
    curve = judge.curve(scores, unexpectedness)
    spec.surprise = _most_felt(curve, config.surprise_costs)
    spec.sources.extend(judge.worths(scores))
    report = MergeReport(
        users=len(users),
        candidates=len(hit),
        positives=positives,
        reliability=reliability(predicted, hit),
        fused=fused,
        merged=judge.recall(scores),
        curve=curve,
    )
    return Merged(spec, model, report)


def active_users(histories: Histories, cut: int, until: int, most: int, seed: int) -> NDArray[np.int64]:
    """Sample at most `most` of the users with a click in [cut, until), ascending."""
    inside = (histories.times >= cut) & (histories.times < until)
    users: NDArray[np.int64] = np.unique(histories.users[inside]).astype(np.int64)
    if len(users) <= most:
        return users
    sample: NDArray[np.int64] = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
    return sample


def _most_felt(curve: tuple[SurprisePoint, ...], costs: float) -> float:
    """Find the surprise of most felt serendipity among those that leave recall above 1 − costs of what it is at 0.

    Geometric means of @20 and @100; of equals the largest. 0 where nothing is found.
    """
    if not curve or not np.prod(curve[0].recall):
        return 0.0
    affordable = [point for point in curve if np.prod(point.recall) >= (1 - costs) ** 2 * np.prod(curve[0].recall)]
    return max(affordable, key=lambda point: (np.prod(point.serendipity), point.surprise)).surprise


class _Judge:
    """Orders of the replayed candidates, judged by the novel targets of the period."""

    def __init__(self, strict: Replay, held_out: HeldOut, histories: Histories) -> None:
        self._strict = strict
        self._targets: Targets = held_out.novel.of_users(strict.users)
        self._of_targets = np.searchsorted(strict.users, self._targets.users)
        statistics = ClickStatistics.of(histories, held_out)
        no_host = np.full((len(strict), 1), -1)
        self._judge = EvaluationJudge.of(held_out, statistics, strict.users, no_host)
        self._popular: Callable[[], NDArray[np.int64]] = lambda: held_out.top_k(
            popularity(held_out, statistics.recent_users), self._targets.users, 2 * max(_DEPTHS), novel=True
        )

    def recall(self, scores: NDArray[np.float32]) -> tuple[float, float] | None:
        """Novel recall at the depths when the candidates stand in the order of scores, [n, K]."""
        if not len(self._targets):
            return None
        rows = np.take_along_axis(self._strict.rows, self._order(scores), axis=1)[self._of_targets]
        first, second = (float(self._targets.recall(rows, k).mean()) for k in _DEPTHS)
        return first, second

    def curve(self, scores: NDArray[np.float32], unexpectedness: NDArray[np.float32]) -> tuple[SurprisePoint, ...]:
        """Try every setting of `surprise`; nothing where nobody had a novel target."""
        points = []
        for surprise in _SURPRISES:
            value = worth(scores, unexpectedness, surprise)
            found = self.recall(value)
            if found is not None:
                order = self._order(value)
                rows = np.take_along_axis(self._strict.rows, order, axis=1)[self._of_targets]
                felt = self._judge.recalls(rows, _DEPTHS)
                at, further = (float(felt["serendipity", k].mean()) for k in _DEPTHS)
                first = np.take_along_axis(unexpectedness, order[:, : _DEPTHS[0]], axis=1)
                points.append(SurprisePoint(surprise, found, (at, further), float(first.mean())))
        return tuple(points)

    def worths(self, scores: NDArray[np.float32]) -> list[records_pb2.SourceWorth]:
        """Compare what each source adds to the collaborative one, among the first 100, with popularity there."""
        if not len(self._targets):
            return []
        first = self._order(scores)[:, : max(_DEPTHS)]
        rows = np.take_along_axis(self._strict.rows, first, axis=1)[self._of_targets]
        sources = np.take_along_axis(self._strict.sources, first, axis=1)[self._of_targets]
        is_near = SOURCES.index(channel_pb2.SOURCE_COLLABORATIVE)
        near = np.take_along_axis(self._strict.found_by[:, :, is_near], first, axis=1)[self._of_targets]
        is_hit, popular, rng = self._targets.hits(rows), self._popular(), np.random.default_rng(_SEED)
        worths = []
        for source in set(SOURCES) - {channel_pb2.SOURCE_COLLABORATIVE}:
            alone = (sources == source) & ~near & (rows >= 0)
            ours = (is_hit & alone).sum(axis=1)
            exchanged = (self._targets.hits(give_places(rows, alone, popular)) & alone).sum(axis=1)
            gap = bootstrap_difference(ours, exchanged, rng)
            worths.append(
                records_pb2.SourceWorth(
                    source=channel_pb2.Source.Name(source),
                    earned=gap.low > 0,
                    places=float(alone.sum(axis=1).mean()),
                    hits=float(ours.mean()),
                    popularity_hits=float(exchanged.mean()),
                    low=gap.low,
                    high=gap.high,
                )
            )
        return worths

    def _order(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """Order the candidates of each user, best first, [n, K]; those of equal scores as they were answered."""
        order: NDArray[np.int64] = np.argsort(np.where(self._strict.rows >= 0, -scores, np.inf), axis=1, kind="stable")
        return order
