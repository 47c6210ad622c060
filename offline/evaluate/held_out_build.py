"""Evaluates the channel of builds that held out their latest clicks (hold_out in the build's configuration)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from serendipity import layout
from serendipity.offline.evaluate.channel import ChannelEvaluation, ChannelEvaluationConfig
from serendipity.offline.evaluate.channel_report import ChannelReport
from serendipity.offline.evaluate.replay import Advance
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.merge.builder import OpenRecall


def held_out_of(out: Path) -> tuple[Histories, Catalogue, int, int]:
    """Read what a build held out: all histories, the catalogue, and the period after the build's moment, Unix seconds.

    Raises LogsError when the build held nothing out.
    """
    logs = out / "held_out" / "logs"
    if not (logs / "clicks.parquet").is_file():
        raise LogsError(f"{logs}: missing; expected a build with hold_out above 0, for instance `--hold-out 0.1`")
    cut, until = LogsSummary.read(out / "logs").events_until, LogsSummary.read(logs).events_until
    return Histories.read(logs), Catalogue.read(logs), cut, until


def evaluate_builds(
    builds: Mapping[int, Path],
    open_recall: OpenRecall,
    config: ChannelEvaluationConfig,
    *,
    advance: Advance = lambda _: None,
) -> ChannelReport:
    """Replay what builds of the same logs held out, one a seed, beside the controls.

    Raises LogsError when a build held nothing out or nobody can be judged, ReplayError for an answer of other logs.
    """
    seeds, out = list(builds), next(iter(builds.values()))
    histories, catalogue, cut, until = held_out_of(out)
    try:
        evaluation = ChannelEvaluation.prepare(histories, catalogue, cut, until, seeds, config, advance)
    except ValueError as error:
        raise LogsError(f"{out / 'held_out' / 'logs'}: {error}") from error
    replays = []
    for seed, build in builds.items():
        with open_recall(snapshot_of(build), build / "towers" / "user_tower.onnx") as recall:
            replays.append(evaluation.replay(recall, seed, advance))
    return evaluation.report(layout.read_manifest(snapshot_of(out)).dataset, replays)


def snapshot_of(out: Path) -> Path:
    """Directory of the snapshot that a build made."""
    made = json.loads((out / "snapshot" / "snapshot.json").read_text(encoding="utf-8"))
    return out / "snapshots" / str(made["version"])
