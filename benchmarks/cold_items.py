"""Items that are new to the catalogue, ranked among themselves: by the channel, with and without the interest source.

    python -m benchmarks.cold_items --build var/mine-held-out
    python -m benchmarks.cold_items --build var/mine-held-out --controls      without the channel: from the logs alone

Reads a build that held its latest clicks out (`serendip evaluate channel` makes one). An item is cold that was first
clicked in the 28 days before the cut. Hardly any list of a hundred holds one, so every method ranks the cold items
alone: of the channel those among a thousand candidates are kept. Judged are the users with a novel cold target. What
places of an answer would be worth that are given to the best method is judged by the novel targets of all users.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.text_only import TextOnly
from benchmarks.young_host import searching_all
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.click_statistics import RECENT_DAYS, ClickStatistics
from serendipity.offline.evaluate.controls import popularity
from serendipity.offline.evaluate.held_out import HeldOut, Score, Targets
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.evaluate.methods_report import number, table
from serendipity.offline.evaluate.replay import SOURCES, Recall, ReplayRequests, replay
from serendipity.offline.evaluate.significance import bootstrap_difference
from serendipity.offline.evaluate.source_worth import give_places
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.interests.taxonomy_reasoner import fit_reasoner
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.tools.arguments import natural, positive
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2

DEPTHS = (5, 20)
"""K of recall, among cold items."""

POPULARITY = "popularity, 28 days"

EXPONENTS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Tried for the probability that a user enters an item's category."""

VALIDATION_START = 0.8
"""Share of the clicks before the validation period, which ends at the cut."""

PLACES = (2, 5, 10)
"""Last places of an answer of ANSWER that are given away."""

ANSWER = 100

_CANDIDATES = 1_000
"""Asked of the channel, as many as a request may."""

_I2I, _U2I = channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_COLLABORATIVE

CHANNELS: Mapping[str, frozenset[int]] = {
    "channel, all sources": frozenset(SOURCES),
    "channel, without interests": frozenset(SOURCES) - {_I2I},
    "source interest alone": frozenset({_I2I}),
    "source collaborative alone": frozenset({_U2I}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Rank a build's cold items and publish the page; returns 1 when nothing was held out or no target is cold."""
    parser = options_of("cold_items", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build with held-out clicks")
    parser.add_argument("--controls", action="store_true", help="leave the channel out; the build needs no snapshot")
    parser.add_argument("--users", type=positive, help="users asked at most, drawn at random (default: all)")
    parser.add_argument("--seed", type=natural, default=0, help="of what is drawn, and of the bootstrap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    rng = np.random.default_rng(args.seed)
    try:
        histories, catalogue, cut, until = held_out_of(args.build)
        held_out = HeldOut.between(histories, catalogue, cut, until)
        statistics = ClickStatistics.of(histories, held_out)
        cold = cold_of(held_out, statistics)
        if not len(targets := cold.novel):
            return failed(parser, f"{args.build}: found no novel target that is cold, expected some")
        everybody = held_out.novel
        if args.users and len(everybody) > args.users:
            everybody = everybody.of_users(rng.choice(everybody.users, args.users, replace=False))
            targets = targets.of_users(everybody.users)
        exponent = choose_exponent(histories, catalogue, split_times(histories, (VALIDATION_START,))[0], cut)
        entering = probabilities(histories, catalogue, cut, everybody.users)
        interests = interests_by_popularity(cold, statistics, everybody.users, entering**exponent)
        scores: dict[str, Score] = {
            POPULARITY: popularity(cold, statistics.recent_users),
            "texts of the clicks": TextOnly.of_build(args.build, catalogue).near_clicks(histories, cold, statistics),
            f"interests^{exponent:g} × popularity": interests,
        }
        lists = {name: cold.top_k(score, targets.users, max(DEPTHS), novel=True) for name, score in scores.items()}
        popular = held_out.top_k(popularity(held_out, statistics.recent_users), everybody.users, 2 * ANSWER, novel=True)
        by_interests = cold.top_k(interests, everybody.users, max(PLACES) + ANSWER, novel=True)
        answers = popular[:, :ANSWER]
        if not args.controls:
            with open_pipeline(snapshot_of(args.build), args.build / "towers" / "user_tower.onnx") as recall:
                for name, sources in CHANNELS.items():
                    lists[name] = cold_places(recall, histories, catalogue, cold, targets.users, sources)
                answers = replay(recall, histories, catalogue, everybody.users, cut, ReplayRequests(ANSWER)).rows
    except (BuilderError, ValueError) as error:
        return failed(parser, error)
    given = {"popularity, 28 days": popular, "cold items, by interests × popularity": by_interests}
    share = targets.counts.sum() / everybody.counts.sum()
    page = [
        f"# Cold items\n\n{made_by(args)}",
        f"{len(targets):,} of {len(everybody):,} users have {targets.counts.sum():,} novel targets among "
        f"{len(cold.candidates):,} cold items, {share:.1%} of all novel targets. The exponent is chosen on validation.",
        judge(lists, targets, rng),
        f"The last places of {ANSWER} given away, of {f'lists by {POPULARITY}' if args.controls else 'the channel'}:",
        judge_places(answers, given, everybody, targets, rng),
    ]
    return publish("\n\n".join(page) + "\n", args.out)


def choose_exponent(histories: Histories, catalogue: Catalogue, start: int, cut: int) -> float:
    """Choose on [start, cut) what the probability of entering a category counts, by the geometric mean of DEPTHS."""
    held_out = HeldOut.between(histories, catalogue, start, cut)
    statistics = ClickStatistics.of(histories, held_out)
    cold = cold_of(held_out, statistics)
    users = cold.novel.users
    if not len(users):
        return 1.0
    entering = probabilities(histories, catalogue, start, users)

    def recall(exponent: float) -> float:
        score = interests_by_popularity(cold, statistics, users, entering**exponent)
        ranked = cold.top_k(score, users, max(DEPTHS), novel=True)
        return float(np.prod([cold.novel.recall(ranked, k).mean() for k in DEPTHS]))

    return max(EXPONENTS, key=recall)


def cold_of(held_out: HeldOut, statistics: ClickStatistics) -> HeldOut:
    """Restrict candidates and targets to items that were first clicked in the RECENT_DAYS before the cut."""
    is_cold = statistics.first_clicks >= held_out.cut - RECENT_DAYS * 86_400
    candidates = held_out.candidates[is_cold[held_out.candidates]]

    def kept(targets: Targets) -> Targets:
        chosen = np.isin(targets.rows, candidates)
        return Targets.from_pairs(targets.users[targets.owners][chosen], targets.rows[chosen])

    # Of what users clicked, no other rows can be left out of a list.
    seen = held_out.seen.copy()
    seen.data[~np.isin(seen.indices, candidates)] = 0
    seen.eliminate_zeros()
    return replace(
        held_out, candidates=candidates, seen=seen, targets=kept(held_out.targets), novel=kept(held_out.novel)
    )


def probabilities(
    histories: Histories, catalogue: Catalogue, cut: int, users: NDArray[np.int64]
) -> NDArray[np.float32]:
    """P(the user enters a category), [users, C + 1], of all novel categories: what latent interests are found by.

    Of the interests stored of a user they are the weights.
    """
    reasoner = fit_reasoner(Taxonomy.from_catalogue(catalogue), histories, cut)
    return reasoner.probabilities(contexts_at(histories, cut, users.tolist()))


def interests_by_popularity(
    cold: HeldOut, statistics: ClickStatistics, users: NDArray[np.int64], weights: NDArray[np.float32]
) -> Score:
    """Rank by the weight of an item's category × the item's users of the last 28 days.

    users: [n] whose lists will be asked for, ascending; weights: [n, C + 1].
    """
    recent, categories = statistics.recent_users[cold.candidates], cold.item_categories[cold.candidates]

    def score(some: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = weights[np.searchsorted(users, some)][:, categories] * recent
        return scores

    return score


def cold_places(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    cold: HeldOut,
    users: NDArray[np.int64],
    sources: frozenset[int],
    depth: int = max(DEPTHS),
) -> NDArray[np.int64]:
    """Ask the channel, every one of the sources searching, and keep the first cold items: [users, depth] rows."""

    requests = ReplayRequests(_CANDIDATES, sources=sources)
    rows = replay(searching_all(recall, sources), histories, catalogue, users, cold.cut, requests).rows
    kept = np.full((len(users), depth), -1, np.int64)
    for place, of_user in enumerate(rows):
        first = of_user[np.isin(of_user, cold.candidates)][:depth]
        kept[place, : len(first)] = first
    return kept


def judge(lists: Mapping[str, NDArray[np.int64]], targets: Targets, rng: np.random.Generator) -> str:
    """Lay out the recall of every list of cold items, and its difference to popularity's."""
    recalls = {(name, k): targets.recall(rows, k) for name, rows in lists.items() for k in DEPTHS}
    rows = []
    for name, ranked in lists.items():
        row = [name, f"{(ranked >= 0).sum(axis=1).mean():.1f}"]
        for k in DEPTHS:
            gain = bootstrap_difference(recalls[name, k], recalls[POPULARITY, k], rng)
            row += [number(float(recalls[name, k].mean())), f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"]
        rows.append(row)
    header = ["", f"found, of {max(DEPTHS)}"]
    for k in DEPTHS:
        header += [f"recall @{k}", "minus popularity"]
    return table(header, rows)


def judge_places(
    answers: NDArray[np.int64],
    given: Mapping[str, NDArray[np.int64]],
    everybody: Targets,
    cold: Targets,
    rng: np.random.Generator,
) -> str:
    """Lay out what answers find, [users, ANSWER] rows, when their last places go to others' lists."""
    asked = np.isin(everybody.users, cold.users)
    before = everybody.recall(answers, ANSWER)
    rows = [("nobody", "", number(float(before.mean())), "", number(_recall(cold, answers[asked])))]
    for places in PLACES:
        last = np.zeros(answers.shape, np.bool_)
        last[:, -places:] = True
        for name, lists in given.items():
            changed = give_places(answers, last, lists)
            after = everybody.recall(changed, ANSWER)
            gain = bootstrap_difference(after, before, rng)
            difference = f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
            found = number(_recall(cold, changed[asked]))
            rows.append((name, f"{places}", number(float(after.mean())), difference, found))
    return table(("given to", "places", f"recall @{ANSWER}", "difference", f"of cold targets @{ANSWER}"), rows)


def _recall(targets: Targets, rows: NDArray[np.int64]) -> float:
    return float(targets.recall(rows, ANSWER).mean())


if __name__ == "__main__":
    sys.exit(main())
