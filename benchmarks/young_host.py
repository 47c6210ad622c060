"""A host that has just begun: the channel and its controls, built, chosen and judged on some of a host's users only.

    python -m benchmarks.young_host --dataset complete-journey --out young.md         1 % and 5 % of the users
    python -m benchmarks.young_host --dataset path/to/folder --shares 0.05 --draws 1  your own logs

Each draw is a build of its own with the latest clicks held out, below --work, unless it is up to date. Beside what
`serendip evaluate channel` compares stand the channel with every source searching, and with every one but interests;
texts alone; and popularity weighed by how near a category is to the user's, by texts or, with --carry, by who clicked
what in another build of the same catalogue, users of the draw left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
from rich.console import Console

from benchmarks.category_scores import by_texts, carried_over, choose_exponent, near_popular
from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.text_only import TextOnly
from serendipity import layout
from serendipity.offline.build_config import BuildConfig
from serendipity.offline.datasets.registry import prepare
from serendipity.offline.evaluate.channel import ChannelEvaluation, ChannelEvaluationConfig
from serendipity.offline.evaluate.channel_report import ChannelReport
from serendipity.offline.evaluate.held_out import Score
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.methods import Kind, MethodResult, RankedLists
from serendipity.offline.evaluate.methods_report import methods_table
from serendipity.offline.evaluate.replay import SOURCES, Recall, ReplayRequests, replay
from serendipity.offline.logs.host_rows import load_events, load_items, load_users
from serendipity.offline.logs.host_table import Host
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.parquet import write_query
from serendipity.tools.arguments import natural, new_directory, positive, share
from serendipity.tools.build import BUILD_ERRORS
from serendipity.tools.evaluate import build_unpublished, held_out_config
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2

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
    parser.add_argument("--carry", type=Path, metavar="DIR", help="another build whose co-occurrence is carried over")
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


def judge_build(build: Path, config: ChannelEvaluationConfig, carry: Path | None) -> ChannelReport:
    """Judge a draw's build. carry: another build, or none. Raises LogsError, ReplayError, EncoderError, ValueError."""
    histories, catalogue, cut, until = held_out_of(build)
    evaluation = ChannelEvaluation.prepare(histories, catalogue, cut, until, [0], config)
    held_out, statistics = evaluation.period.held_out, evaluation.period.statistics
    depth = max(config.depths)
    scores = {"texts of the clicks": TextOnly.of_build(build, catalogue).near_clicks(histories, held_out, statistics)}
    nearness = {"texts": by_texts(catalogue.categories)}
    if carry is not None:
        nearness["carried over"] = carried_over(carry / "logs", catalogue.categories, histories.user_ids)
    for name, near in nearness.items():
        exponent = choose_exponent(near, histories, catalogue, cut)
        scores[f"popularity × near by {name}"] = near_popular(near, held_out, statistics, exponent)

    def ranked(name: str, score: Score) -> RankedLists:
        novel, exclusive = (
            held_out.top_k(score, evaluation.users, depth, novel=True, excluded=excluded)
            for excluded in (None, evaluation.host)
        )
        return RankedLists(name, "control", None, novel, exclusive)

    def asked(name: str, kind: Kind, recall: Recall, sources: frozenset[int]) -> RankedLists:
        novel, exclusive = (
            replay(
                searching_all(recall, sources), histories, catalogue, evaluation.users, cut,
                ReplayRequests(depth, sources=sources, host=host),
            ).rows
            for host in (None, evaluation.host)
        )  # fmt: skip
        return RankedLists(name, kind, 0, novel, exclusive)

    everything = frozenset(SOURCES)
    with open_pipeline(snapshot_of(build), build / "towers" / "user_tower.onnx") as recall:
        replayed = evaluation.replay(recall, 0)
        lists = [
            asked("channel, every source searching", "channel", recall, everything),
            asked("channel, every source but interest", "channel", recall, everything - {channel_pb2.SOURCE_INTEREST}),
        ]
    evaluation = replace(evaluation, lists=(*evaluation.lists, *(ranked(*each) for each in scores.items())))
    replayed = replace(replayed, lists=(replayed.lists[0], *lists, *replayed.lists[1:]))
    return evaluation.report(layout.read_manifest(snapshot_of(build)).dataset, [replayed])


def searching_all(recall: Recall, sources: frozenset[int]) -> Recall:
    """Let every one of the sources search: a quota ends exploring, and nothing depends on who explores that day."""

    def recall_all(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        for source in sorted(sources):
            request.source_quotas.add(source=channel_pb2.Source.Name(source), max_count=request.count)
        return recall(request)

    return recall_all


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
            reports.append(judge_build(directory / "build", config, args.carry))
        except (*BUILD_ERRORS, ValueError) as error:
            console.print(f"left out: {error}", markup=False)
    return reports


if __name__ == "__main__":
    sys.exit(main())
