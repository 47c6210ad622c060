"""Sessions that open with a search: a request as a host sends it then, and the same request without the search.

    python -m benchmarks.searches --build var/mine-held-out
    python -m benchmarks.searches --build var/mine-held-out --simulate     logs without searches

Reads a build that held its latest clicks out (`serendip evaluate channel` makes one).

Simulated, every user with a novel target searches for the kind of the first one: the last name of its category path, in
any order, without one of its words where there are several. Such a search always comes true, so what it adds there is
the most that a search can; another user's search shows what one costs that does not. Beyond the search are the targets
in other categories than those that the search names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.text_only import TextOnly
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.controls import popularity
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.methods_report import number, table
from serendipity.offline.evaluate.replay import Recall, ReplayRequests, replay
from serendipity.offline.evaluate.significance import bootstrap_difference
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.tools.arguments import natural, positive
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2

DEPTHS = (20, 100)
"""K of recall."""

WITHOUT, WITH, ANOTHERS = "channel, without the search", "channel, with the search", "channel, with another's search"


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a build's sessions and publish the page; returns 1 when nothing was held out or no session opens so."""
    parser = options_of("searches", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with held-out clicks")
    parser.add_argument("--simulate", action="store_true", help="make searches up; the logs' own are not looked at")
    parser.add_argument("--users", type=positive, help="sessions at most, drawn at random (default: all)")
    parser.add_argument("--seed", type=natural, default=0, help="of what is drawn, and of the bootstrap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    rng = np.random.default_rng(args.seed)
    try:
        histories, catalogue, cut, until = held_out_of(args.build)
        held_out = HeldOut.between(histories, catalogue, cut, until)
        if args.simulate:
            searches = simulated_searches(histories, held_out, catalogue, rng)
        else:
            searches = opening_searches(histories, held_out)
        if args.users and len(searches) > args.users:
            drawn = np.sort(rng.choice(np.array(list(searches)), args.users, replace=False))
            searches = {user: searches[user] for user in drawn.tolist()}
        if not searches:
            return failed(parser, f"{args.build}: found no session that opens with a search, expected some")
        texts = TextOnly.of_build(args.build, catalogue)
        with open_pipeline(snapshot_of(args.build), args.build / "towers" / "user_tower.onnx") as recall:
            lists = rank_sessions(recall, histories, catalogue, held_out, searches, texts)
    except (BuilderError, ValueError) as error:
        return failed(parser, error)
    page = judge_sessions(lists, held_out, Taxonomy.from_catalogue(catalogue), searches, rng)
    kind = "with a novel target, whose searches are simulated" if args.simulate else "whose period begins with a search"
    heading = f"# Sessions that open with a search\n\n{made_by(args)}\n\n{len(searches):,} users {kind}."
    return publish(f"{heading}\n\n{page}\n", args.out)


def rank_sessions(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    held_out: HeldOut,
    searches: Mapping[int, str],
    texts: TextOnly,
    depth: int = max(DEPTHS),
) -> dict[str, NDArray[np.int64]]:
    """Ask for every user who searched, by every method: [users, depth] item rows in the order of the users."""
    users = np.array(sorted(searches), np.int64)
    statistics = ClickStatistics.of(histories, held_out)
    scores = {
        "popularity, 28 days": popularity(held_out, statistics.recent_users),
        "text of the search": texts.near_searches(searches, held_out, statistics),
        "texts of the clicks": texts.near_clicks(histories, held_out, statistics),
    }
    lists = {name: held_out.top_k(score, users, depth, novel=True) for name, score in scores.items()}
    ordered = [searches[user] for user in users.tolist()]
    others = dict(zip(users.tolist(), ordered[1:] + ordered[:1], strict=True))
    for name, asked in (
        (WITHOUT, recall),
        (WITH, with_searches(recall, histories, searches)),
        (ANOTHERS, with_searches(recall, histories, others)),
    ):
        answers = replay(asked, histories, catalogue, users, held_out.cut, ReplayRequests(depth))
        lists[name] = answers.rows
    return lists


def judge_sessions(
    lists: Mapping[str, NDArray[np.int64]],
    held_out: HeldOut,
    taxonomy: Taxonomy,
    searches: Mapping[int, str],
    rng: np.random.Generator,
    depths: Sequence[int] = DEPTHS,
) -> str:
    """Lay out the recall of all novel targets and of those beyond the search, and what the search changes."""
    users = np.array(sorted(searches), np.int64)
    targets = {"all": held_out.novel.of_users(users), "beyond the search": beyond(held_out, taxonomy, searches)}
    header, rows = [""], [[name] for name in lists]
    changes = []
    for which, of in targets.items():
        asked = np.isin(users, of.users)
        for k in depths:
            header.append(f"{which} @{k}")
            recalls = {name: of.recall(rows_of[asked], k) for name, rows_of in lists.items()}
            for row, name in zip(rows, lists, strict=True):
                row.append(number(float(recalls[name].mean())))
            for name in (WITH, ANOTHERS):
                gain = bootstrap_difference(recalls[name], recalls[WITHOUT], rng)
                changes.append((f"{name}, {which} @{k}", f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"))
    return f"{table(header, rows)}\n\n{table(('against the channel without the search', 'difference'), changes)}"


def beyond(held_out: HeldOut, taxonomy: Taxonomy, searches: Mapping[int, str]) -> Targets:
    """Keep the novel targets of users that are in no category that the user's search names."""
    named = {user: set(taxonomy.matcher.match(search)) for user, search in searches.items()}
    novel = held_out.novel.of_users(np.array(sorted(searches), np.int64))
    owners = novel.users[novel.owners]
    categories = held_out.item_categories[novel.rows].tolist()
    kept = [category not in named[user] for user, category in zip(owners.tolist(), categories, strict=True)]
    return Targets.from_pairs(owners[kept], novel.rows[kept])


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


def simulated_searches(
    histories: Histories, held_out: HeldOut, catalogue: Catalogue, rng: np.random.Generator
) -> dict[int, str]:
    """Let every user with a novel target search for the kind of the first one, in words of the catalogue."""
    found = {}
    novel = held_out.novel
    for place, user in enumerate(novel.users.tolist()):
        wanted = set(novel.rows[novel.offsets[place] : novel.offsets[place + 1]].tolist())
        clicks = slice(int(histories.offsets[user]), int(histories.offsets[user + 1]))
        times, rows = histories.times[clicks], histories.items[clicks] - 1
        first = next(row for row, time in zip(rows, times, strict=True) if time >= held_out.cut and int(row) in wanted)
        words = catalogue.paths[int(first)][-1].lower().replace("/", " ").split()
        kept = rng.permutation(len(words))[: max(1, len(words) - 1)].tolist()
        found[user] = " ".join(words[at] for at in kept)
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
