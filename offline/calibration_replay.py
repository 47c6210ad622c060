"""Replays held-out time through the real pipeline to learn what its scores are worth."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.offline.calibration import (
    CalibrationConfig,
    Outcomes,
    Reliability,
    calibrate,
    fit_calibration,
    reliability,
)
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.replay import Advance, Recall, Replay, ReplayRequests, outcomes, replay
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2, records_pb2


class OpenRecall(Protocol):
    """Opens the pipeline over a snapshot directory and an exported user tower.

    tower: None: as if it were away. by_tower: True: with the group and the graph source switched off. The pipeline's
    clock must be the snapshot's (now = events_until), or ages and interests would be those of another time.
    """

    def __call__(self, snapshot: Path, tower: Path | None, *, by_tower: bool = False) -> AbstractContextManager[Recall]:
        """Open it."""
        ...


NOVEL_RECALL_DEPTH = 20

_ALONE = {channel_pb2.SOURCE_GROUP: "coevolution", channel_pb2.SOURCE_GRAPH: "graph"}
"""Sources that are replayed alone, and the part of the manifest without which there is none of them."""


@dataclass(frozen=True)
class CalibrationReplay:
    """What a replay of held-out time gave.

    reliability: of the curves on the very candidates they were fitted on, with the tower. novel_recall: Recall@20 on
    novel targets under STRICT, mean over users; None if nobody had one.
    """

    calibration: records_pb2.Calibration
    reliability: Reliability
    novel_recall: float | None
    users: int
    candidates: int

    def to_json(self) -> str:
        """Lay out everything but the curves as JSON."""
        content = {name: value for name, value in asdict(self).items() if name != "calibration"}
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False)


def replay_for_calibration(
    open_recall: OpenRecall,
    snapshot: Path,
    tower: Path,
    histories: Histories,
    catalogue: Catalogue,
    cut: int,
    until: int,
    *,
    max_users: int,
    count: int,
    seed: int = 20_240_601,
    config: CalibrationConfig,
    advance: Advance = lambda _: None,
) -> CalibrationReplay:
    """Replay [cut, until) with the tower and without it, and fit a calibrator for every source and path.

    In a snapshot with novel-category lists the group source is replayed alone, as is the graph source where there is a
    graph, and the others without them: while nothing is calibrated an item goes to the source with the larger raw
    score, and what is left to a source beside one of another scale would not tell what it is worth. On The Complete
    Journey too few hits were left to the interest source for a curve of its own.

    snapshot, tower: made of events before `cut` alone; histories: up to `until`. Users are those who clicked in the
    period: P(interaction | recalled) is that of users who are there to be asked for.
    """
    users = active_users(histories, cut, until, max_users, seed)
    requests = ReplayRequests(count=count, exclude_own=False)
    manifest = layout.read_manifest(snapshot)
    alone = [source for source, part in _ALONE.items() if manifest.HasField(part)]
    of_each = []
    with open_recall(snapshot, tower) as recall:
        for source in alone:
            by_source = replace(requests, sources=frozenset({source}))
            of_each.append(outcomes(replay(recall, histories, catalogue, users, cut, by_source), histories, cut, until))
    of_these = Outcomes.concatenate(of_each)
    answers = []
    parts = []
    for program in (tower, None):
        with open_recall(snapshot, program, by_tower=True) as recall:
            answers.append(replay(recall, histories, catalogue, users, cut, requests, advance=advance))
        # The group source searches by the user's own vector, which at this moment is the stored one, and the graph
        # source by none of the tower's: once is enough.
        both = replace(of_these, fallback=np.full(len(of_these), program is None))
        parts.append(Outcomes.concatenate([outcomes(answers[-1], histories, cut, until), both]))
    calibration = fit_calibration(Outcomes.concatenate(parts), (until - cut) / 86_400, config)
    return CalibrationReplay(
        calibration=calibration,
        reliability=_reliability(parts[0], calibration),
        novel_recall=_novel_recall(answers[0], HeldOut.between(histories, catalogue, cut, until)),
        users=len(users),
        candidates=sum(map(len, parts)),
    )


def active_users(histories: Histories, cut: int, until: int, most: int, seed: int) -> NDArray[np.int64]:
    """Sample at most `most` of the users with a click in [cut, until), ascending."""
    inside = (histories.times >= cut) & (histories.times < until)
    users: NDArray[np.int64] = np.unique(histories.users[inside]).astype(np.int64)
    if len(users) <= most:
        return users
    sample: NDArray[np.int64] = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
    return sample


def _reliability(replayed: Outcomes, calibration: records_pb2.Calibration) -> Reliability:
    predicted = np.zeros(len(replayed))
    for calibrator in calibration.calibrators:
        chosen = (replayed.sources == calibrator.source) & (replayed.fallback == calibrator.fallback)
        predicted[chosen] = calibrate(calibrator, replayed.raw[chosen])
    return reliability(predicted, replayed.hits)


def _novel_recall(answers: Replay, held_out: HeldOut) -> float | None:
    targets = held_out.novel.of_users(answers.users)
    if not len(targets):
        return None
    return float(targets.recall(answers.rows_of(targets.users), NOVEL_RECALL_DEPTH).mean())
