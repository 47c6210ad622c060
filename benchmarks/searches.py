"""Sessions that open with a search: a request as a host sends it then, and the same request without the search.

    python -m benchmarks.searches --build var/mine-held-out

Reads a build that held its latest clicks out (`serendip evaluate channel` makes one); beside the channel stand the
controls, tuned as there, for the same users.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.command import failed, made_by, options_of, publish, read_options
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.channel import ChannelEvaluation, ChannelEvaluationConfig
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.measures import Judge
from serendipity.offline.evaluate.methods import RankedLists, measure_methods
from serendipity.offline.evaluate.methods_report import LEGEND, methods_table
from serendipity.offline.evaluate.replay import Recall, ReplayRequests, replay
from serendipity.offline.logs.histories import Histories
from serendipity.tools.arguments import natural
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a build's sessions and publish the page; returns 1 when nothing was held out or no session opens so."""
    parser = options_of("searches", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with held-out clicks")
    parser.add_argument("--seed", type=natural, default=0, help="of the controls that a seed changes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    config = ChannelEvaluationConfig()
    try:
        histories, catalogue, cut, until = held_out_of(args.build)
        evaluation = ChannelEvaluation.prepare(histories, catalogue, cut, until, [args.seed], config)
        with open_pipeline(snapshot_of(args.build), args.build / "towers" / "user_tower.onnx") as recall:
            page = judge_sessions(evaluation, recall)
    except (BuilderError, ValueError) as error:
        return failed(parser, error)
    if page is None:
        return failed(parser, f"{args.build}: found no session that opens with a search, expected some")
    return publish(f"# Sessions that open with a search\n\n{made_by(args)}\n\n{page}\n", args.out)


def judge_sessions(evaluation: ChannelEvaluation, recall: Recall) -> str | None:
    """Measure the channel with the search and without, beside the controls. None where no session opens with one."""
    histories, held_out = evaluation.histories, evaluation.period.held_out
    searches = opening_searches(histories, held_out)
    chosen = np.flatnonzero(np.isin(evaluation.users, list(searches)))
    users = evaluation.users[chosen]
    if not len(users):
        return None
    depths = evaluation.config.depths
    lists = [RankedLists(one.name, one.kind, one.seed, one.novel[chosen]) for one in evaluation.lists]
    for name, asked in (("without", recall), ("with", with_searches(recall, histories, searches))):
        found = replay(asked, histories, evaluation.catalogue, users, held_out.cut, ReplayRequests(max(depths)))
        lists.append(RankedLists(f"channel, {name} the search", "channel", None, found.rows))
    judge = Judge.of(held_out, evaluation.period.statistics, users, evaluation.host[chosen])
    table = methods_table(measure_methods(lists, judge, depths), depths)
    return f"{len(users):,} users whose first event in the period is a search. {LEGEND}\n\n{table}"


def opening_searches(histories: Histories, held_out: HeldOut) -> dict[int, str]:
    """Find the users whose first event in the held-out period is a search, and what they searched for.

    What is known of them at the search is what was known at the cut, so the lists and targets of the cut hold.
    """
    found = {}
    for user in held_out.novel.users.tolist():
        start, end = int(histories.search_offsets[user]), int(histories.search_offsets[user + 1])
        times = histories.search_times[start:end]
        first = int(np.searchsorted(times, held_out.cut))
        if first == len(times) or times[first] >= held_out.until:
            continue
        clicks = histories.times[histories.offsets[user] : histories.offsets[user + 1]]
        others = clicks
        if len(histories.signal_offsets):
            signals = slice(int(histories.signal_offsets[user]), int(histories.signal_offsets[user + 1]))
            others = np.concatenate([clicks, histories.signal_times[signals]])
        if times[first] <= others[others >= held_out.cut].min(initial=held_out.until):
            found[user] = histories.searches[start + first]
    return found


def with_searches(recall: Recall, histories: Histories, searches: Mapping[int, str]) -> Recall:
    """Send each user's search along as an event of the session."""

    def recall_with_search(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        query = searches[histories.user_numbers[request.user_id]]
        request.recent_events.add(type=channel_pb2.EVENT_TYPE_SEARCH, query=query)
        return recall(request)

    return recall_with_search


if __name__ == "__main__":
    sys.exit(main())
