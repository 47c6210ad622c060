"""Evaluates the channel of a build that held out its latest clicks (hold_out in the build's configuration)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from serendipity import layout
from serendipity.offline.calibration_replay import OpenRecall
from serendipity.offline.evaluate.baselines import BASELINES
from serendipity.offline.evaluate.channel import BaselineLists, ChannelEvaluationConfig, evaluate_channel
from serendipity.offline.evaluate.channel_report import ChannelReport
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.replay import Advance, Recall
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories


def held_out_of(out: Path) -> tuple[Histories, Catalogue, HeldOut]:
    """Read what a build held out: all histories, the catalogue, and the targets after the build's moment.

    Raises LogsError when the build held nothing out.
    """
    logs = out / "held_out" / "logs"
    if not (logs / "clicks.parquet").is_file():
        raise LogsError(f"{logs}: missing; expected a build with hold_out above 0, for instance `--hold-out 0.1`")
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    cut = LogsSummary.read(out / "logs").events_until
    return histories, catalogue, HeldOut.between(histories, catalogue, cut, LogsSummary.read(logs).events_until)


def evaluate_build(
    out: Path,
    open_recall: OpenRecall,
    config: ChannelEvaluationConfig | None = None,
    *,
    recall: Recall | None = None,
    with_baselines: bool = True,
    advance: Advance = lambda _: None,
) -> ChannelReport:
    """Replay what a build held out through its snapshot, against popularity, ALS and BPR fitted on the same clicks.

    recall: a running service that serves this build's snapshot; by default the pipeline is opened in this process.
    Raises LogsError when the build held nothing out.
    """
    config = config or ChannelEvaluationConfig()
    histories, catalogue, held_out = held_out_of(out)
    snapshot = (
        out / "snapshots" / json.loads((out / "snapshot" / "snapshot.json").read_text(encoding="utf-8"))["version"]
    )
    baselines = fit_baselines(held_out, max(config.depths), config.seed) if with_baselines else {}

    def run(asked: Recall) -> ChannelReport:
        return evaluate_channel(
            asked,
            histories,
            catalogue,
            held_out,
            dataset=layout.read_manifest(snapshot).dataset,
            config=config,
            baselines=baselines,
            advance=advance,
        )

    if recall is not None:
        return run(recall)
    with open_recall(snapshot, out / "towers" / "user_tower.pt2") as opened:
        return run(opened)


def fit_baselines(held_out: HeldOut, depth: int, seed: int) -> Mapping[str, BaselineLists]:
    """Fit every baseline on the clicks before the cut and rank for every user with targets, `depth` items each."""
    lists = {}
    for name, fit in BASELINES.items():
        score = fit(held_out, seed)
        lists[name] = BaselineLists(
            all=held_out.top_k(score, held_out.targets.users, depth, novel=False),
            novel=held_out.top_k(score, held_out.novel.users, depth, novel=True),
        )
    return lists
