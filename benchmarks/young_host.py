"""A host that has just begun: the channel and its controls, built, chosen and judged on some of a host's users only.

    python -m benchmarks.young_host --dataset complete-journey --out young.md         1 % and 5 % of the users
    python -m benchmarks.young_host --dataset path/to/folder --shares 0.05 --draws 1  your own logs

Each draw is a build of its own with the latest clicks held out, below --work, unless it is up to date.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
from rich.console import Console

from benchmarks.command import failed, made_by, options_of, publish, read_options
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.datasets.registry import prepare
from serendipity.offline.evaluate.channel import ChannelEvaluationConfig
from serendipity.offline.evaluate.channel_report import ChannelReport
from serendipity.offline.evaluate.methods import MethodResult
from serendipity.offline.evaluate.methods_report import methods_table
from serendipity.offline.logs.host_rows import load_events, load_items, load_users
from serendipity.offline.logs.host_table import Host
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.parquet import write_query
from serendipity.tools.arguments import natural, new_directory, positive, share
from serendipity.tools.build import BUILD_ERRORS
from serendipity.tools.evaluate import build_unpublished, held_out_config, replay_builds

_ORIGIN = "EXCLUDE (source, source_row, reason)"


def sample_users(host: Path, out: Path, share: float, seed: int, now: int) -> int:
    """Write host files with a share of the users who have events, drawn at random, and all items.

    now: Unix seconds. Rows that the logs builder would reject are left out. Returns how many users those are, at least
    one where there are any. Raises LogsError when a file is missing or cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        tables = Host(connection, str(host), LogsConfig())
        load_items(connection, tables)
        load_events(connection, tables, now, None)
        load_users(connection, tables)
        found = connection.execute("SELECT DISTINCT user_id FROM host_events WHERE reason IS NULL").fetchall()
        users = sorted(row[0] for row in found)
        chosen = np.random.default_rng(seed).permutation(users)[: max(1, round(share * len(users)))].tolist()
        connection.execute("CREATE TEMP TABLE chosen AS SELECT unnest(?::VARCHAR[]) AS user_id", [chosen])
        theirs = "reason IS NULL AND user_id IN (SELECT user_id FROM chosen)"
        events = f"SELECT * {_ORIGIN} RENAME (time AS timestamp) FROM host_events WHERE {theirs}"
        write_query(connection, events, out / "events.parquet")
        write_query(connection, f"SELECT * {_ORIGIN} FROM host_users WHERE {theirs}", out / "users.parquet")
        write_query(connection, f"SELECT * {_ORIGIN} FROM host_items WHERE reason IS NULL", out / "items.parquet")
    return len(chosen)


def pool(draws: Sequence[Sequence[MethodResult]]) -> tuple[MethodResult, ...]:
    """Lay the users of several evaluations one after another, averaged over seeds; methods that all of them have."""
    by_name = [{method.name: method for method in draw} for draw in draws]
    pooled = []
    for first in draws[0]:
        same = [methods[first.name] for methods in by_name if first.name in methods]
        if len(same) == len(draws):
            keys = set.intersection(*(set(method.per_user) for method in same))
            per_user = {
                key: np.concatenate([method.per_user[key].mean(axis=0) for method in same])[None] for key in keys
            }
            pooled.append(MethodResult(first.name, first.kind, (None,), per_user))
    return tuple(pooled)


def main(argv: Sequence[str] | None = None) -> int:
    """Build and judge every draw and publish the page; returns 1 when something is refused."""
    parser = options_of("young_host", __doc__)
    parser.add_argument("--dataset", default="complete-journey", help="data set or host folder")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with the build's configuration")
    parser.add_argument("--hold-out", type=share, default=0.1, metavar="SHARE", help="latest clicks held out")
    parser.add_argument("--shares", type=share, nargs="+", default=[0.01, 0.05], metavar="SHARE", help="users kept")
    parser.add_argument("--draws", type=positive, default=3, help="young hosts of each share")
    parser.add_argument("--seed", type=natural, default=0, help="of the first draw")
    parser.add_argument("--work", type=new_directory, metavar="DIR", help="builds (default: var/DATASET-young)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    work = args.work or Path("var") / f"{Path(args.dataset).resolve().name}-young"
    console, config = Console(stderr=True), ChannelEvaluationConfig()
    sections = []
    try:
        builds = held_out_config(args.dataset, args.hold_out, args.config)
        host = prepare(args.dataset, work)
        if "novelty_level" not in builds.logs.model_fields_set:
            logs = builds.logs.model_copy(update={"novelty_level": host.novelty_level})
            builds = builds.model_copy(update={"logs": logs})
        for of_users in args.shares:
            if reports := _judge_draws(args, builds, Path(host.root), work, of_users, config, console):
                judged = sum(report.users for report in reports)
                methods = methods_table(pool([report.methods for report in reports]), config.depths)
                sections.append(
                    f"## {of_users:.0%} of the users\n\n{len(reports)} draws, {judged:,} users.\n\n{methods}"
                )
    except BUILD_ERRORS as error:
        return failed(parser, error)
    if not sections:
        return failed(parser, f"{args.dataset}: found no draw that can be judged, expected larger shares")
    return publish("\n\n".join([f"# Young hosts of {host.name}\n\n{made_by(args)}", *sections]) + "\n", args.out)


def _judge_draws(
    args: argparse.Namespace,
    builds: BuildConfig,
    host: Path,
    work: Path,
    of_users: float,
    config: ChannelEvaluationConfig,
    console: Console,
) -> list[ChannelReport]:
    """Build and judge the draws of a share of the users; those too small to be are left out, and said."""
    reports = []
    for draw in range(args.seed, args.seed + args.draws):
        directory = work / f"{of_users:g}-{draw}"
        users = sample_users(host, directory / "sample", of_users, draw, int(time.time()))
        console.print(f"young host: {of_users:.0%} of the users, draw {draw}: {users:,}")
        try:
            sample = builds.model_copy(update={"dataset": str(directory / "sample")})
            build_unpublished(sample, directory / "build", console)
            reports.append(replay_builds({0: directory / "build"}, config, console))
        except (*BUILD_ERRORS, ValueError) as error:
            console.print(f"left out: {error}", markup=False)
    return reports


if __name__ == "__main__":
    sys.exit(main())
