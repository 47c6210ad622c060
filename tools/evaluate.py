"""Replay the held-out period through the real pipeline, beside simple controls that are tuned as carefully.

    serendip evaluate channel --dataset complete-journey                three seeds
    serendip evaluate channel --dataset path/to/folder --seeds 0        one build of your own logs

A build a seed is made, with the latest clicks held out, unless it is up to date: <build> for the first, <build>-seed-N
for the others, which train the towers anew.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from serendipity import layout
from serendipity.offline.build_config import BuildConfig, BuildConfigError, load_build_config
from serendipity.offline.evaluate.channel import ChannelEvaluationConfig
from serendipity.offline.evaluate.channel_report import ChannelReport, to_markdown, write_report
from serendipity.offline.evaluate.held_out_build import evaluate_builds, snapshot_of
from serendipity.offline.evaluate.methods_report import run_heading
from serendipity.offline.evaluate.replay import ReplayError
from serendipity.offline.snapshot.gate import GateRefusedError
from serendipity.tools.arguments import natural, new_directory, positive, share
from serendipity.tools.build import BUILD_ERRORS, build_and_place
from serendipity.tools.pipeline import open_pipeline

_TRAINED = ("towers", "snapshot", "snapshots", "merge", "canary", "models", "state")
"""What a build of another seed makes for itself."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip evaluate`."""
    parser.add_argument("subject", choices=("channel",))
    parser.add_argument("--dataset", default="complete-journey", help="data set or host folder")
    parser.add_argument(
        "--build", type=new_directory, metavar="DIR", help="where it is built (default: var/DATASET-held-out)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with the build's configuration")
    parser.add_argument("--hold-out", type=share, default=0.1, metavar="SHARE", help="latest clicks held out")
    parser.add_argument("--seeds", type=natural, nargs="+", default=[0, 1, 2], help="of the towers and of ALS")
    parser.add_argument("--users", type=positive, help="users replayed at most (default: all)")
    parser.add_argument("--out", type=new_directory, metavar="DIR", help="also write channel.md and .json here")


def run(args: argparse.Namespace) -> int:
    """Build what is missing, replay, print the report; returns 1 when something is refused."""
    console, started = Console(), time.time()
    command = shlex.join(["serendip", *sys.argv[1:]])
    try:
        report = _evaluate(args, console)
        heading = run_heading(command, started, time.time())
        if args.out:
            write_report(report, heading, args.out)
    except (*BUILD_ERRORS, ReplayError, OSError) as error:
        print(f"serendip evaluate channel: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        # Of a builder that logs as these leave nothing to work on.
        print(f"serendip evaluate channel: {args.dataset}: {error}", file=sys.stderr)
        return 1
    console.print(to_markdown(report, heading), markup=False, highlight=False, soft_wrap=True)
    return 0


def held_out_config(dataset: str, hold_out: float, file: Path | None) -> BuildConfig:
    """Configure a build that holds out the share `hold_out` of the clicks. file: TOML. Raises BuildConfigError."""
    # Answers do not ask InterestGPT: it refreshes interests near-line.
    return load_build_config(file, {"dataset": dataset, "hold_out": hold_out, "interest_gpt": {"enabled": False}})


def build_unpublished(config: BuildConfig, directory: Path, console: Console) -> None:
    """Build without publishing, whatever the gate finds: it compares with the last build there."""
    with suppress(GateRefusedError):
        build_and_place(config, directory, console, publish=False)


def replay_builds(builds: dict[int, Path], config: ChannelEvaluationConfig, console: Console) -> ChannelReport:
    """Replay builds, one a seed. Raises LogsError, ReplayError."""
    console.print(f"controls are chosen on validation, then {len(builds)} builds are replayed", style="dim")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("controls tried and users replayed", total=None)

        def advance(done: int) -> None:
            progress.advance(task, done)

        return evaluate_builds(builds, open_pipeline, config, advance=advance)


def _evaluate(args: argparse.Namespace, console: Console) -> ChannelReport:
    build = args.build or Path("var") / f"{Path(args.dataset).resolve().name}-held-out"
    config = held_out_config(args.dataset, args.hold_out, args.config)
    _refuse_another(build, config)
    evaluation = ChannelEvaluationConfig(max_users=args.users or 0)
    # Each is a build of its own, the first one where the others take from it what does not depend on the seed.
    builds = {seed: build if seed == args.seeds[0] else Path(f"{build}-seed-{seed}") for seed in args.seeds}
    for seed, directory in builds.items():
        if directory != build and not directory.exists():
            _copy(build, directory)
        towers = config.towers.model_copy(update={"seed": seed})
        build_unpublished(config.model_copy(update={"towers": towers}), directory, console)
    return replay_builds(builds, evaluation, console)


def _refuse_another(build: Path, config: BuildConfig) -> None:
    """Refuse a directory in which something else was built, which would be built over."""
    if not (build / "snapshot" / "snapshot.json").is_file():
        return
    made = json.loads(layout.read_manifest(snapshot_of(build)).build_configuration)
    if (made["dataset"], made["hold_out"]) != (config.dataset, config.hold_out):
        raise BuildConfigError(
            f"{build}: found a build of {made['dataset']} with hold_out {made['hold_out']:g}, expected one of "
            f"{config.dataset} with {config.hold_out:g}, or another --build"
        )


def _copy(build: Path, directory: Path) -> None:
    """Copy what does not depend on the seed, beside and then into place: a copy that was ended is begun anew."""
    beside = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(build, beside, ignore=shutil.ignore_patterns(*_TRAINED, ".build.lock"))
    beside.replace(directory)
