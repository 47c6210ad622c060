"""What `surprise` and `diversity` cost and give: recall, felt serendipity and popularity of answers at some settings.

    python -m benchmarks.surprise --build var/complete-journey-held-out

Reads a build that held its latest clicks out (`serendip evaluate channel` makes one), and judges by these.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command import failed, options_of, publish, read_options
from serendipity import layout
from serendipity.channel.local import LocalChannel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.measures import Judge
from serendipity.offline.evaluate.methods_report import number, run_heading, table
from serendipity.offline.evaluate.replay import ReplayRequests, replay

SETTINGS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Values of `surprise` tried, beside the snapshot's own."""

DIVERSITIES = (0.1, 0.2, 0.4)
"""Weights of maximal marginal relevance tried, at the snapshot's own surprise."""

_DEPTHS = (20, 100)
_MEASURES = ("recall", "never", "serendipity")


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a build's users at every setting and publish the page; returns 1 when nothing was held out."""
    parser = options_of("surprise", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with held-out clicks")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    try:
        started = time.time()
        measured = _measured(args.build)
        command = shlex.join(["python", "-m", "benchmarks.surprise", *(argv or sys.argv[1:])])
        page = f"# Surprise\n\n{run_heading(command, started, time.time())}\n\n{measured}\n"
    except BuilderError as error:
        return failed(parser, error)
    return publish(page, args.out)


def _measured(build: Path) -> str:
    histories, catalogue, cut, until = held_out_of(build)
    held_out = HeldOut.between(histories, catalogue, cut, until)
    statistics, users = ClickStatistics.of(histories, held_out), held_out.novel.users
    judge = Judge.of(held_out, statistics, users, np.full((len(users), 1), -1))
    lines = []
    for surprise, diversity in [
        (None, 0.0),
        *((each, 0.0) for each in SETTINGS),
        *((None, each) for each in DIVERSITIES),
    ]:
        settings = ChannelSettings(clock="snapshot", diversity=diversity)
        tower = LocalTower(build / "towers" / "user_tower.onnx")
        requests = ReplayRequests(max(_DEPTHS), surprise=surprise, features=True)
        with LocalChannel(snapshot_of(build), tower, settings=settings, verify=False) as channel:
            answers = replay(channel.recall, histories, catalogue, users, cut, requests)
        found = judge.recalls(answers.rows, _DEPTHS)
        first = answers.rows[:, : _DEPTHS[0]]
        there = first >= 0
        unexpectedness = answers.features[:, : _DEPTHS[0], answers.feature_names.index("unexpectedness")][there]
        categories = [len(np.unique(held_out.item_categories[rows[rows >= 0]])) for rows in first]
        lines.append(
            (
                "the snapshot's" if surprise is None else f"{surprise:g}",
                f"{diversity:g}",
                *(" / ".join(number(float(np.nanmean(found[name, k]))) for k in _DEPTHS) for name in _MEASURES),
                f"{unexpectedness.mean():.3f}",
                f"{statistics.recent_users[first[there]].mean():,.0f}",
                f"{np.mean(categories):.1f}",
            )
        )
    own = layout.read_manifest(snapshot_of(build)).merge.surprise
    heads = (
        "surprise",
        "diversity",
        *_MEASURES,
        "unexpectedness of the first 20",
        "their users in 28 days",
        "categories",
    )
    return f"{len(users):,} users; the snapshot's own setting is {own:g}. @20 / @100.\n\n{table(heads, lines)}"


if __name__ == "__main__":
    sys.exit(main())
