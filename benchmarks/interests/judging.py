"""Judges latent interests of any origin side by side: do users then turn to them, and more than others would?

Everything is judged at equal K: a list that is shorter counts as if its missing places had missed. Methods without a
language model answer for all users; an InterestGPT for a sample per seed, disjoint samples for different seeds, and is
compared with the others on the same users.

A hit alone does not tell that an interest is the user's: what most people want, most people turn to. So every place is
judged twice, by whether this user turns to its category, and by how often others as active do to whom it is new as
well. What is the same for everybody gains nothing by that difference, whatever it is. Popular unseen gains a little: of
ten users as active, those turn to the tenth category most who know the nine before it. So a method passes where it
gains more than that control does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.behaviour import Behaviour
from serendipity.interests.reasoner import Interest, InterestPath, Reasoner
from serendipity.interests.search_matching import SearchMatcher
from serendipity.novelty import NO_CATEGORY, clicked_categories
from serendipity.offline.evaluate.significance import Estimate, bootstrap_difference
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.debate import DebateReport
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.histories import Histories, before
from serendipity.v1 import records_pb2

K = 10
"""Interests judged per user."""

POPULAR_DAYS = 28
"""Days before the cut that popularity is counted in."""

_DAY = 86_400

ACTIVITY_GROUPS = 10
"""Users are compared with those of their tenth by clicks in the POPULAR_DAYS before the cut: who buys more turns to
more of everything, and to what is popular most."""

POPULAR_UNSEEN, POPULAR_OR_OWN = "popular unseen", "popular unseen, own long ago"

OWN_WEIGHTS = (-0.35, 0.0, 0.35, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Tried for a user's own clicks in a category, long ago; below 0 they count against it."""


@dataclass(frozen=True)
class Evaluation:
    """What interests are judged with.

    histories: of the whole time; cut, until: Unix seconds, what is known and what is judged; users: [n] numbers of
    those who clicked before the cut and after it.
    """

    histories: Histories
    taxonomy: Taxonomy
    cut: int
    until: int
    users: NDArray[np.int64]

    @classmethod
    def of(cls, histories: Histories, taxonomy: Taxonomy, cut: int, until: int) -> Evaluation:
        """Find the users that can be judged."""
        before = np.unique(histories.users[histories.times < cut])
        after = np.unique(histories.users[(histories.times >= cut) & (histories.times < until)])
        users = np.intersect1d(before, after).astype(np.int64)
        return cls(histories, taxonomy, cut, until, users)

    @cached_property
    def later(self) -> NDArray[np.bool_]:
        """Categories that each user clicks in the judged period, [n, C + 1]."""
        return clicked_between(self.histories, self.users, self.cut, self.until, len(self.taxonomy.categories))

    @cached_property
    def novel(self) -> NDArray[np.bool_]:
        """Categories not among each user's latest 200 clicks, [n, C + 1]."""
        clicks = (self.histories.clicks_before(user, self.cut) for user in self.users.tolist())
        return ~np.stack([clicked_categories(clicked, len(self.taxonomy.categories)) for clicked in clicks])

    @cached_property
    def evidence(self) -> NDArray[np.float64]:
        """What each user's clicks and searches say for each category, [n, C + 1]."""
        contexts = contexts_at(self.histories, self.cut, self.users.tolist())
        behaviour = Behaviour.of(contexts, len(self.taxonomy.categories), SearchMatcher(self.taxonomy.searched_names))
        return behaviour.evidence.astype(np.float64)

    @cached_property
    def usual(self) -> NDArray[np.float64]:
        """Share of the others of a user's activity to whom a category is novel that click it in the judged period.

        [n, C + 1]; where there is nobody else, what the user does: such a place tells nothing.
        """
        histories, n = self.histories, len(self.users)
        lately = (histories.times < self.cut) & (histories.times >= self.cut - POPULAR_DAYS * _DAY)
        activity = np.bincount(histories.users[lately], minlength=len(histories))[self.users]
        group = np.empty(n, np.int64)
        group[np.argsort(activity, kind="stable")] = np.arange(n) * ACTIVITY_GROUPS // max(n, 1)
        hits = self.later & self.novel
        of_group = np.zeros((2, ACTIVITY_GROUPS, hits.shape[1]))
        np.add.at(of_group[0], group, hits)
        np.add.at(of_group[1], group, self.novel)
        turned, asked = of_group[0][group] - hits, of_group[1][group] - self.novel
        return np.divide(turned, asked, out=hits.astype(np.float64), where=asked > 0)

    def samples(self, seeds: Sequence[int], size: int) -> dict[int, NDArray[np.int64]]:
        """Draw disjoint samples of `size` users, one per seed, ascending; fewer users where there are too few."""
        order = np.random.default_rng(min(seeds)).permutation(self.users)
        size = min(size, len(order) // max(len(seeds), 1))
        return {seed: np.sort(order[i * size : (i + 1) * size]) for i, seed in enumerate(seeds)}


@dataclass(frozen=True)
class Said:
    """What a method said of some users. interests: per user, best first, at most K.

    counts of a language model's proposals, None for methods that say nothing but nodes: proposals, grounded (nameable
    nodes, whether or not novel), kept; answers, parse_failures.
    """

    method: str
    seed: int
    users: NDArray[np.int64]
    interests: list[list[Interest]]
    proposals: int | None = None
    grounded: int | None = None
    kept: int | None = None
    answers: int | None = None
    parse_failures: int | None = None
    debate: DebateReport | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Judged:
    """Figures per user, [n] each, in the order of said.users.

    length: interests, at most K; hit: share of the K places whose category the user clicks in the judged period; own:
    that share less the one expected of others as active, to whom the same categories are novel.
    """

    said: Said
    length: NDArray[np.float64]
    hit: NDArray[np.float64]
    own: NDArray[np.float64]


def run_reasoner(
    evaluation: Evaluation,
    method: str,
    reasoner: Reasoner,
    users: NDArray[np.int64],
    seed: int,
    clock: Callable[[], float],
) -> Said:
    """Ask a reasoner about users as of the cut. clock: seconds, of any zero. Raises what the reasoner raises."""
    started = clock()
    found = reasoner.reason(contexts_at(evaluation.histories, evaluation.cut, users.tolist()), K)
    return with_counts(Said(method, seed, users, found, seconds=clock() - started), reasoner)


def with_counts(said: Said, reasoner: Reasoner) -> Said:
    """Note what a language model's answers came to, and what they cost."""
    if not isinstance(reasoner, LlmReasoner) or reasoner.counts is None:
        return said
    counts = reasoner.counts
    return replace(
        said,
        proposals=counts.proposals,
        grounded=counts.grounded,
        kept=counts.kept,
        answers=counts.answers,
        parse_failures=counts.parse_failures,
        debate=reasoner.report,
    )


def popular_unseen(evaluation: Evaluation, users: NDArray[np.int64]) -> Said:
    """Answer every user with the novel categories that most users clicked in the POPULAR_DAYS before the cut."""
    return ranked(evaluation, POPULAR_UNSEEN, users, np.tile(_popularity(evaluation), (len(users), 1)))


def popular_or_own(evaluation: Evaluation, users: NDArray[np.int64], weight: float) -> Said:
    """Answer every user with the novel categories of largest log(1 + users lately) + weight · log(1 + own clicks ever).

    Half of what is novel by the latest 200 clicks was clicked before them: this control knows nothing else of a user.
    """
    histories = evaluation.histories
    known = histories.times < evaluation.cut
    own = np.zeros((len(histories), len(evaluation.taxonomy.categories) + 1))
    np.add.at(own, (histories.users[known], histories.categories[known]), 1)
    return ranked(evaluation, POPULAR_OR_OWN, users, log_popularity(evaluation) + weight * np.log1p(own[users]))


def choose_own_weight(evaluation: Evaluation, start: int) -> float:
    """Choose the weight of `popular_or_own` on [start, evaluation.cut), by the hits there."""
    histories = before(evaluation.histories, evaluation.cut)
    validation = Evaluation.of(histories, evaluation.taxonomy, start, evaluation.cut)
    return max(
        OWN_WEIGHTS,
        key=lambda weight: judge_interests(validation, popular_or_own(validation, validation.users, weight)).hit.mean(),
    )


def log_popularity(evaluation: Evaluation) -> NDArray[np.float64]:
    """log(1 + users of every category in the POPULAR_DAYS before the cut), [C + 1]."""
    return np.log1p(_popularity(evaluation))


def _popularity(evaluation: Evaluation) -> NDArray[np.float64]:
    """Users of every category in the POPULAR_DAYS before the cut, [C + 1]."""
    histories, cut = evaluation.histories, evaluation.cut
    recent = (histories.times < cut) & (histories.times >= cut - POPULAR_DAYS * _DAY)
    pairs = np.unique(np.stack([histories.users[recent], histories.categories[recent]]), axis=1)
    return np.bincount(pairs[1], minlength=len(evaluation.taxonomy.categories) + 1).astype(np.float64)


def judge_interests(evaluation: Evaluation, said: Said) -> Judged:
    """Judge what a method said. An interest stands for the top-level category of its node."""
    length, hit, expected = np.zeros((3, len(said.users)))
    rows = np.searchsorted(evaluation.users, said.users).tolist()
    for place, (row, interests) in enumerate(zip(rows, said.interests, strict=True)):
        # Several interests of one category are one guess.
        guesses = sorted({evaluation.taxonomy.nodes[interest.node_id].categories[0] for interest in interests[:K]})
        length[place] = len(interests[:K])
        hit[place] = evaluation.later[row, guesses].sum() / K
        expected[place] = evaluation.usual[row, guesses].sum() / K
    return Judged(said, length, hit, hit - expected)


@dataclass(frozen=True)
class Row:
    """A method over its seeds. users: all of them; lists: interests per user; the other figures are means over users,
    with ± the standard deviation over the seeds (0 for one); None where a method has none.

    own: the hits beyond those of others; gain: by how much own is above that of popular unseen, paired; against: method
    → paired difference in future-hit@K on the users both answered for; cost: users or categories a model was asked
    about, calls and tokens; seconds: in all.
    """

    method: str
    seeds: tuple[int, ...]
    users: int
    length: float
    parse_rate: float | None
    grounded_share: float | None
    kept_share: float | None
    hit: float
    hit_deviation: float
    own: float
    gain: Estimate
    against: Mapping[str, Estimate]
    cost: DebateReport | None
    seconds: float

    @property
    def passes(self) -> bool:
        """Tell whether the method knows its users: they turn to what it names more than to what everybody wants."""
        return self.gain.low > 0


def row_of(runs: Sequence[Judged], baselines: Mapping[str, Judged], rng: np.random.Generator) -> Row:
    """Sum up the runs of one method. baselines: of all users, by name, POPULAR_UNSEEN among them."""
    users = np.concatenate([run.said.users for run in runs])
    hit = np.concatenate([run.hit for run in runs])
    own = np.concatenate([run.own for run in runs])
    debates = [run.said.debate for run in runs if run.said.debate]
    popular = baselines[POPULAR_UNSEEN]
    total = len(users)
    return Row(
        method=runs[0].said.method,
        seeds=tuple(run.said.seed for run in runs),
        users=total,
        length=float(np.concatenate([run.length for run in runs]).mean()),
        parse_rate=_share(runs, "parse_failures", "answers", complement=True),
        grounded_share=_share(runs, "grounded", "proposals"),
        kept_share=_share(runs, "kept", "proposals"),
        hit=float(hit.mean()),
        hit_deviation=float(np.std([run.hit.mean() for run in runs])),
        own=float(own.mean()),
        gain=bootstrap_difference(own, popular.own[np.searchsorted(popular.said.users, users)], rng),
        against={
            name: bootstrap_difference(hit, baseline.hit[np.searchsorted(baseline.said.users, users)], rng)
            for name, baseline in baselines.items()
            if name != runs[0].said.method
        },
        cost=sum(debates, DebateReport()) if debates else None,
        seconds=sum(run.said.seconds for run in runs),
    )


def clicked_between(
    histories: Histories, users: NDArray[np.int64], start: int, end: int, num_categories: int
) -> NDArray[np.bool_]:
    """Mark the categories clicked in [start, end): [n, C + 1]; column 0 is empty."""
    rows = np.full(len(histories), -1)
    rows[users] = np.arange(len(users))
    inside = (histories.times >= start) & (histories.times < end) & (rows[histories.users] >= 0)
    clicked = np.zeros((len(users), num_categories + 1), np.bool_)
    clicked[rows[histories.users[inside]], histories.categories[inside]] = True
    clicked[:, NO_CATEGORY] = False
    return clicked


def ranked(evaluation: Evaluation, method: str, users: NDArray[np.int64], scores: NDArray[np.float64]) -> Said:
    """Take each user's K novel categories of highest score above 0; the interest is the category's own node."""
    taxonomy = evaluation.taxonomy
    scores = np.where(evaluation.novel[np.searchsorted(evaluation.users, users)], scores, 0.0)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    node_of = {
        node.categories[0]: node
        for node in reversed(taxonomy.nodes)
        if len(node.path) == taxonomy.novelty_level + 1 and node.categories
    }
    found = []
    for row, categories in enumerate(best.tolist()):
        chosen = [category for category in categories if scores[row, category] > 0]
        found.append(
            [
                Interest(
                    node_of[category].node_id,
                    1.0,
                    InterestPath(
                        records_pb2.SEED_KIND_POPULATION, "", "", node_of[category].name,
                        records_pb2.RELATION_HYPONYM, 1.0,
                    ),
                )
                for category in chosen
            ]
        )  # fmt: skip
    return Said(method, 0, users, found)


def _share(runs: Sequence[Judged], part: str, whole: str, *, complement: bool = False) -> float | None:
    parts = [getattr(run.said, part) for run in runs]
    wholes = [getattr(run.said, whole) for run in runs]
    if any(value is None for value in (*parts, *wholes)):
        return None
    share = float(sum(parts) / max(sum(wholes), 1))
    return 1 - share if complement else share
