"""Run all builders in order: logs → interests → towers → calibration → snapshot → quality gate → publication.

    serendip build --dataset complete-journey --out var/complete-journey
    serendip build --dataset path/to/folder --out var/mine --config build.toml

Steps whose inputs, configuration and code are what they were are skipped; a killed build goes on where it stopped.
Steps that do not depend on each other run at the same time where there are cores. The trained models are placed in
<out>/models for Triton.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from pydantic import ValidationError
from rich.console import Console

from serendipity import layout
from serendipity.channel.errors import ChannelError
from serendipity.channel.snapshot.publication import Publications
from serendipity.groups.model import GroupModelError
from serendipity.interests.model import InterestGptError
from serendipity.offline.build import BuildResult, build, build_step
from serendipity.offline.build_config import BuildConfig, load_build_config, write_build_config
from serendipity.offline.encoder import default_path
from serendipity.offline.errors import BuilderError
from serendipity.offline.merge.builder import OpenRecall
from serendipity.offline.snapshot.gate import GateRefusedError
from serendipity.offline.workers import MAX_WORKERS
from serendipity.tools import pipeline
from serendipity.tools.quality_gate import quality_gate
from serendipity.tools.serving.deployment import place, place_pinned
from serendipity.tools.serving.kinds import TEXT_ENCODER
from serendipity.tools.serving.trainings import PlacementError

BUILD_ERRORS = (
    BuilderError, ChannelError, GroupModelError, InterestGptError, layout.SnapshotError, PlacementError,
    ValidationError,
)  # fmt: skip
"""What keeps a build from being finished, said in one line; the gate's refusal apart."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip build`."""
    parser.add_argument("--dataset", help="complete-journey, ml-100k, ml-1m, or a folder (default: complete-journey)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="build directory (default: var/DATASET)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with any field of the build's configuration")
    parser.add_argument(
        "--write-config",
        type=Path,
        metavar="FILE",
        help="write a configuration with every key explained; build nothing",
    )
    parser.add_argument("--until", metavar="TIME", help="build as of a moment: Unix seconds or ISO 8601")
    parser.add_argument(
        "--hold-out", type=float, metavar="SHARE", help="keep the latest clicks for `serendip evaluate`"
    )
    parser.add_argument(
        "--erasures", type=Path, metavar="DIR", help="list of users to be forgotten (default: OUT/state/erasures)"
    )
    parser.add_argument("--step", metavar="NAME", help="bring this step up to date, with what it is made of; no more")
    parser.add_argument("--no-publish", action="store_true", help="leave the snapshot unpublished")


def run(args: argparse.Namespace) -> int:
    """Build; returns 1 when a builder or the gate refuses."""
    given: dict[str, object] = {}
    if args.dataset is not None:
        given["dataset"] = args.dataset
    if args.until is not None:
        given["logs"] = {"until": args.until}
    if args.hold_out is not None:
        given["hold_out"] = args.hold_out
    try:
        if args.write_config is not None:
            write_build_config(args.write_config)
            return 0
        config = load_build_config(args.config, given)
        out = args.out or default_out(config.dataset)
        if args.step is not None:
            build_step(args.step, config, out, console=Console(), **_surroundings(out, args.erasures))
            return 0
        build_and_place(config, out, Console(), publish=not args.no_publish, erasures=args.erasures)
    except GateRefusedError as error:
        print(f"serendip build: {error}\nThe snapshot is on disk and not published.", file=sys.stderr)
        return 1
    except BUILD_ERRORS as error:
        print(f"serendip build: {error}", file=sys.stderr)
        return 1
    return 0


def default_out(dataset: str) -> Path:
    """Directory a data set is built in unless told otherwise."""
    return Path("var") / Path(dataset).name


def build_and_place(
    config: BuildConfig, out: Path, console: Console, *, publish: bool = True, erasures: Path | None = None
) -> BuildResult:
    """Build, place the models for Triton, and publish what passes the gate.

    erasures: the list of users to be forgotten; None: the one a service keeps in `out`/state, if there is one.
    """
    models = out / "models"

    def place_and_publish(snapshot: Path) -> None:
        place(TEXT_ENCODER, config.text_encoder or default_path(), models)
        place_pinned(layout.read_manifest(snapshot), out, models)
        Publications(out / "snapshots", gates=[quality_gate(config.gate)]).publish(snapshot.name)

    return build(
        config,
        out,
        publish=place_and_publish if publish else None,
        console=console,
        **_surroundings(out, erasures),
    )


class _Surroundings(TypedDict):
    open_recall: OpenRecall
    recall_code: Sequence[str]
    erasures: Path | None
    workers: int


def _surroundings(out: Path, erasures: Path | None) -> _Surroundings:
    """What a build needs that no configuration says: the pipeline, the list of users to be forgotten, the cores."""
    kept = out / "state" / "erasures"
    return {
        "open_recall": pipeline.open_pipeline,
        "recall_code": pipeline.CODE,
        "erasures": erasures or (kept if kept.is_dir() else None),
        "workers": min(len(os.sched_getaffinity(0)), MAX_WORKERS),
    }
