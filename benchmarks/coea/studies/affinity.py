"""Table 3: do the categories that are named lie near the user's long-term interest? Cosines, with every step defined.

The paper lets its Novelty LLM write 100 items a category and averages their representations. Ours answers categories
alone, so that a category's vector e_c is the mean of the CSA network's own item vectors (item embedding plus category
embedding, the ones its next-item training compares the interest to) over the category's ITEMS items clicked most in
training, fewer where it has fewer. A user's vector z_u is the long-term interest, the network's last position over the
clicks known at the test. The value of a user is the mean of cos(z_u, e_c) over the first K categories of a list.

Two readings of the table's rows:
named   whose list it is: RANDOM, K categories drawn from the candidates; SHORT, of LLMs that are told C_s alone (w/o
        Long); FULL, of CoEA. Against the same z_u. Beside them TARGETS, the categories clicked next outside C_s.
read    the paper's: CoEA's list throughout, against OTHERS, the mean interest of ten users of other groups; EXCHANGE,
        what the network makes of the short-term sequence, the clicks back to the third latest category; OWN, z_u.

The plain cosine confounds what is named with how it is clicked: a category that everybody clicks is a candidate for
those who were not clicking it lately, whose interests lie away from it; one hardly clicked is a candidate for all.
So every cosine is also given BEYOND the category's own: less the mean of cos(z_v, e_c) over all users v the category c
was a candidate for. Categories drawn from the candidates get 0 there, but for chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.coea.comparison import Cutoffs
from benchmarks.coea.protocol import CategorySplit, Episodes
from benchmarks.coea.shared_trainings import SharedTrainings
from benchmarks.coea.studies.paired import PairedDifference
from benchmarks.coea.studies.variant import Variant, group_ids, listed
from benchmarks.coea.trial import Answers, TrialResult
from serendipity.groups.sequence import SHORT_CATEGORIES
from serendipity.novelty import NO_CATEGORY
from serendipity.offline.groups.group_model import GroupModel
from serendipity.offline.logs.histories import Histories

ITEMS = 100
OTHER_USERS = 10

RANDOM, SHORT, FULL, TARGETS = "random", "short-only (w/o Long)", "CoEA", "clicked next"
NAMED = (RANDOM, SHORT, FULL, TARGETS)

OTHERS, EXCHANGE, OWN = "ten others", "CoEA-Exchange", "own"
READ = (OTHERS, EXCHANGE, OWN)

BEYOND = "beyond "


@dataclass(frozen=True)
class AffinityTrial:
    """Cosines of one seed on the test episodes. Answers: every name of NAMED and READ, [n] float64, NaN for users
    without such a category; the same with BEYOND before the name."""

    variant: Variant
    name: str = "affinity"

    @property
    def configuration(self) -> Mapping[str, object]:
        """The variant's."""
        return self.variant.configuration

    def run(self, split: CategorySplit, seed: int, shared: SharedTrainings) -> Answers:
        """Train both rows and compare what they list."""
        episodes, length = split.test, Cutoffs.of(split).rank
        rng = np.random.default_rng([seed, 6])
        model, full = self.variant.coevolve(split, seed, shared)
        _, short = replace(self.variant, with_profile=False).coevolve(split, seed, shared)
        groups = group_ids(model, episodes)
        chosen = {
            RANDOM: _random_lists(episodes, length, rng),
            SHORT: _chosen(listed(short, groups, episodes), length, split.num_categories),
            FULL: _chosen(listed(full, groups, episodes), length, split.num_categories),
            TARGETS: episodes.reachable,
        }
        own = model.vectors(episodes.histories)[episodes.users].astype(np.float64)
        exchange = replace(model, rule=replace(model.rule, threshold=1)).vectors(short_histories(episodes))
        users = {
            OTHERS: _others(own, groups, rng),
            EXCHANGE: exchange[episodes.users].astype(np.float64),
            OWN: own,
        }
        categories = category_vectors(model, split)
        cosines = {name: _cosines(vectors, categories) for name, vectors in users.items()}
        answers: dict[str, NDArray[np.float64]] = {}
        for prefix in ("", BEYOND):
            if prefix:
                cosines = {name: beyond(found, episodes.candidates) for name, found in cosines.items()}
            answers |= {prefix + name: _mean_over(cosines[OWN], chosen[name]) for name in NAMED}
            answers |= {prefix + name: _mean_over(cosines[name], chosen[FULL]) for name in READ}
        return answers


@dataclass(frozen=True)
class AffinityStudy:
    """Means over users: name → [seeds]; length: K."""

    seeds: tuple[int, ...]
    means: Mapping[str, NDArray[np.float64]]
    seconds: tuple[float, ...]
    length: int

    def difference(self, one: str, other: str) -> PairedDifference:
        """Compare two rows, paired by seed."""
        return PairedDifference.of(self.means[one], self.means[other])


def study(results: Sequence[TrialResult], split: CategorySplit) -> AffinityStudy:
    """Average over users."""
    means = {
        name: np.array([np.nanmean(found.answers[name].astype(np.float64)) for found in results])
        for name in results[0].answers
    }
    return AffinityStudy(
        tuple(found.seed for found in results),
        means,
        tuple(found.seconds for found in results),
        Cutoffs.of(split).rank,
    )


def category_vectors(model: GroupModel, split: CategorySplit, items: int = ITEMS) -> NDArray[np.float64]:
    """Average the item vectors of each category's most clicked items: [C, d], NaN for a category nobody clicked.

    Equally clicked items come in the catalogue's order.
    """
    encoder = model.encoder.interest
    clicks = np.bincount(split.training.items, minlength=len(split.catalogue.item_ids) + 1)[1:]
    found = np.full((split.num_categories, encoder.dim), np.nan)
    with torch.inference_mode():
        for column in range(split.num_categories):
            rows = np.flatnonzero((split.catalogue.item_categories == column + 1) & (clicks > 0))
            most = rows[np.argsort(-clicks[rows], kind="stable")[:items]]
            if len(most):
                tokens, numbers = encoder.identify(torch.from_numpy(most + 1))
                found[column] = encoder.item_vectors(tokens, numbers).double().mean(0).numpy()
    return found


def short_histories(episodes: Episodes) -> Histories:
    """Cut every history before the clicks that C_s was read from: the stretch that holds its last distinct categories.

    Users that are not asked for keep nothing.
    """
    known = episodes.histories
    kept = np.zeros(len(known.items), np.bool_)
    for user in episodes.users.tolist():
        start, end = int(known.offsets[user]), int(known.offsets[user + 1])
        seen: set[int] = set()
        first = end
        for place in range(end - 1, start - 1, -1):
            category = int(known.categories[place])
            if category != NO_CATEGORY:
                if category not in seen and len(seen) == SHORT_CATEGORIES:
                    break
                seen.add(category)
            first = place
        kept[first:end] = True
    return replace(
        known,
        offsets=np.concatenate([[0], np.cumsum(kept)])[known.offsets].astype(np.int64),
        items=known.items[kept],
        categories=known.categories[kept],
        times=known.times[kept],
    )


def _random_lists(episodes: Episodes, length: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    draws = np.where(episodes.candidates, rng.random(episodes.candidates.shape), -1.0)
    first = np.argsort(-draws, axis=1)[:, :length]
    found = np.zeros(draws.shape, np.bool_)
    np.put_along_axis(found, first, True, axis=1)
    return found & episodes.candidates


def _chosen(lists: NDArray[np.int16], length: int, num_categories: int) -> NDArray[np.bool_]:
    """Tell which categories are among the first K of each list: [n, C]."""
    # What is past a list's end goes to a column of its own.
    found = np.zeros((len(lists), num_categories + 1), np.bool_)
    np.put_along_axis(found, lists[:, :length].astype(np.int64) % (num_categories + 1), True, axis=1)
    return found[:, :num_categories]


def _others(vectors: NDArray[np.float64], groups: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Average ten users of other groups for each user; of all other users where there is one group: [n, d]."""
    found = np.zeros(vectors.shape, np.float64)
    for user, group in enumerate(groups.tolist()):
        others = np.flatnonzero(groups != group)
        if not len(others):
            others = np.delete(np.arange(len(groups)), user)
        found[user] = vectors[rng.choice(others, min(OTHER_USERS, len(others)), replace=False)].mean(axis=0)
    return found


def _cosines(users: NDArray[np.float64], categories: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute cosines, [n, C], NaN for a category without a vector."""
    one = users / np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-12)
    other = categories / np.maximum(np.linalg.norm(categories, axis=1, keepdims=True), 1e-12)
    found: NDArray[np.float64] = one @ other.T
    return found


def beyond(cosines: NDArray[np.float64], candidates: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Take from each category's cosines, [n, C], their mean over the users it is a candidate for."""
    users = np.maximum(candidates.sum(axis=0), 1)
    found: NDArray[np.float64] = cosines - np.where(candidates, cosines, 0.0).sum(axis=0) / users
    return found


def _mean_over(cosines: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average each user's cosines over the chosen categories that have a vector: [n], NaN where there is none."""
    counted = chosen & ~np.isnan(cosines)
    sums = np.where(counted, cosines, 0.0).sum(axis=1)
    counts = counted.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
