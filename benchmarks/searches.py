"""Sessions that open with a search: a request as a host sends it then, and the same request without the search.

    python -m benchmarks.searches --build var/mine-held-out
    python -m benchmarks.searches --build var/mine-held-out --simulate     logs without searches
    python -m benchmarks.searches --build var/mine-held-out --controls     without the channel: from the logs alone

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
from serendipity.interests.search_matching import SearchMatcher
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.controls import popularity
from serendipity.offline.evaluate.held_out import HeldOut, Score, Targets
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.methods_report import number, table
from serendipity.offline.evaluate.replay import Recall, ReplayRequests, replay
from serendipity.offline.evaluate.significance import bootstrap_difference
from serendipity.offline.interests.taxonomy import NO_NODE, Taxonomy
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.tools.arguments import natural, positive
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2

DEPTHS = (20, 100)
"""K of recall."""

POPULARITY = "popularity, 28 days"
WITHOUT, WITH, ANOTHERS = "channel, without the search", "channel, with the search", "channel, with another's search"

BASES = {"names that the search shares words with": "text of the search", WITH: WITHOUT, ANOTHERS: WITHOUT}
"""What is compared with what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a build's sessions and publish the page; returns 1 when nothing was held out or no session opens so."""
    parser = options_of("searches", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with held-out clicks")
    parser.add_argument("--simulate", action="store_true", help="make searches up; the logs' own are not looked at")
    parser.add_argument("--controls", action="store_true", help="leave the channel out; the build needs no snapshot")
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
        taxonomy, texts = Taxonomy.from_catalogue(catalogue), TextOnly.of_build(args.build, catalogue)
        lists = rank_by_controls(histories, held_out, searches, texts, taxonomy)
        if not args.controls:
            with open_pipeline(snapshot_of(args.build), args.build / "towers" / "user_tower.onnx") as recall:
                lists |= rank_sessions(recall, histories, catalogue, held_out, searches)
    except (BuilderError, ValueError) as error:
        return failed(parser, error)
    matcher = SearchMatcher(taxonomy.searched_names)
    grounded = np.mean([bool(matcher.match(search)) for search in searches.values()])
    page = judge_sessions(lists, held_out, taxonomy, searches, rng)
    kind = "with a novel target, whose searches are simulated" if args.simulate else "whose period begins with a search"
    heading = f"# Sessions that open with a search\n\n{made_by(args)}\n\n{len(searches):,} users {kind}; "
    heading += f"{grounded:.1%} of the searches ground."
    return publish(f"{heading}\n\n{page}\n", args.out)


def rank_by_controls(
    histories: Histories,
    held_out: HeldOut,
    searches: Mapping[int, str],
    texts: TextOnly,
    taxonomy: Taxonomy,
    depth: int = max(DEPTHS),
) -> dict[str, NDArray[np.int64]]:
    """Rank for every user who searched, without the channel: [users, depth] item rows in the order of the users."""
    users = np.array(sorted(searches), np.int64)
    statistics = ClickStatistics.of(histories, held_out)
    scores = {
        POPULARITY: popularity(held_out, statistics.recent_users),
        "texts of the clicks": texts.near_clicks(histories, held_out, statistics),
        "text of the search": texts.near_searches(searches, held_out, statistics),
        "names that the search shares words with": near_names(searches, taxonomy, texts.nodes, held_out, statistics),
    }
    return {name: held_out.top_k(score, users, depth, novel=True) for name, score in scores.items()}


def near_names(
    searches: Mapping[int, str],
    taxonomy: Taxonomy,
    nodes: NDArray[np.int64],
    held_out: HeldOut,
    statistics: ClickStatistics,
) -> Score:
    """Rank by how well a user's search matches a name on the item's path, as requests do; then by popularity.

    nodes: [n] the lowest node of each item.
    """
    matcher = SearchMatcher((node.name, node.node_id) for node in taxonomy.nodes if len(node.categories) == 1)
    order = sorted(taxonomy.nodes, key=lambda node: len(node.path))
    popular = np.log1p(statistics.recent_users[held_out.candidates])
    ties = np.float32(1e-3) * popular / max(float(popular.max(initial=0)), 1.0)

    def of_user(user: int) -> NDArray[np.float32]:
        strengths = np.zeros(len(taxonomy.nodes), np.float32)
        for node_id, strength in matcher.match(searches[user]).items():
            strengths[node_id] = strength
        for node in order:
            if node.parent != NO_NODE:
                strengths[node.node_id] = max(strengths[node.node_id], strengths[node.parent])
        return strengths

    def score(some: NDArray[np.int64]) -> NDArray[np.float32]:
        matched = np.stack([of_user(user) for user in some.tolist()])
        scores: NDArray[np.float32] = matched[:, nodes[held_out.candidates]] + ties
        return scores

    return score


def rank_sessions(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    held_out: HeldOut,
    searches: Mapping[int, str],
    depth: int = max(DEPTHS),
) -> dict[str, NDArray[np.int64]]:
    """Ask the channel for every user who searched: without the search, with it, and with the next user's."""
    users, lists = np.array(sorted(searches), np.int64), {}
    ordered = [searches[user] for user in users.tolist()]
    others = dict(zip(users.tolist(), ordered[1:] + ordered[:1], strict=True))
    for name, asked in (
        (WITHOUT, recall),
        (WITH, with_searches(recall, histories, searches)),
        (ANOTHERS, with_searches(recall, histories, others)),
    ):
        lists[name] = replay(asked, histories, catalogue, users, held_out.cut, ReplayRequests(depth)).rows
    return lists


def judge_sessions(
    lists: Mapping[str, NDArray[np.int64]],
    held_out: HeldOut,
    taxonomy: Taxonomy,
    searches: Mapping[int, str],
    rng: np.random.Generator,
    depths: Sequence[int] = DEPTHS,
) -> str:
    """Lay out the recall of all novel targets and of those beyond the search, and what differs from BASES for sure."""
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
            for name, base in BASES.items():
                if name in lists:
                    gain = bootstrap_difference(recalls[name], recalls[base], rng)
                    difference = f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
                    changes.append((f"{name}, minus {base}", f"{which} @{k}", difference))
    return f"{table(header, rows)}\n\n{table(('', 'recall', 'difference'), sorted(changes))}"


def beyond(held_out: HeldOut, taxonomy: Taxonomy, searches: Mapping[int, str]) -> Targets:
    """Keep the novel targets of users that are in no category that the user's search names."""
    matcher = SearchMatcher(taxonomy.searched_names)
    named = {user: set(matcher.match(search)) for user, search in searches.items()}
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
