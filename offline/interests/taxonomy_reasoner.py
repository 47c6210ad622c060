"""The reasoner without a language model: hypernym up, hyponym or co-hyponym down, by co-interest in the data.

Latent interests are the top-level categories that the user is most likely to enter within the next H days (see
`entry_model`), none of them among the latest 200 clicks; each is grounded in the taxonomy node that holds most of its
recent clicks. The path to one starts at what speaks for it most: a search for it, a category the user clicks in or
searched, a profile attribute; failing these, the category's own past (bought long ago, not lately); failing that, the
population. From there

* seed and interest share an ancestor below the root: that is the core demand; the interest is a co-hyponym of the
  seed where both are its children, a hyponym of the demand otherwise;
* they share none (the climb leads out of the seed's own branch): the demand is the interest's own parent, which users
  of the seed turn to, and the interest its hyponym;
* the interest has no parent: the co-interest itself is all there is; the demand is the seed, the interest beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import NO_CATEGORY
from serendipity.offline.interests.behaviour import NEVER_DAYS, Behaviour
from serendipity.offline.interests.contexts import contexts_at
from serendipity.offline.interests.entry_model import (
    FIT_WINDOWS,
    HORIZON_DAYS,
    RATE_WINDOWS,
    TERMS,
    EntryModel,
    EntryModelConfig,
    Window,
    fit_entry_model,
)
from serendipity.offline.interests.reasoner import MAX_INTERESTS, Interest, InterestPath, UserContext
from serendipity.offline.interests.search_matching import SearchMatcher
from serendipity.offline.interests.taxonomy import NO_NODE, Taxonomy
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import records_pb2

_DAY = 86_400
_CHUNK = 4_096
"""Users reasoned about at once: bounds memory at some ten matrices of this many rows."""

_MAX_USERS = 20_000
"""Users the entry model is estimated on, evenly spaced among those with clicks."""

_GROUNDING_HALF_LIFE_DAYS = 90.0

SAME_PARENT_SHARE = 0.5
"""A seed beside the interest is preferred when it speaks for it at least this much as strongly as the strongest."""

WEAK_LOG_ODDS = 0.05
"""Evidence below it is no reason: the path starts at the population."""


@dataclass(frozen=True)
class _Fitted:
    until: int
    model: EntryModel
    category_nodes: NDArray[np.int32]


class TaxonomyReasoner:
    """Latent interests from the taxonomy and the logs alone. Fit it, then reason as often as wanted."""

    name = "taxonomy"

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._matcher = SearchMatcher(taxonomy)
        self._fitted: _Fitted | None = None

    def fit(self, histories: Histories, until: int) -> TaxonomyReasoner:
        """Estimate everything from clicks strictly before a moment, and return self."""
        profiles, now, windows = self._windows(histories, until)
        model = fit_entry_model(now, windows, profiles, EntryModelConfig())
        self._fitted = _Fitted(until, model, self._ground(histories, until))
        return self

    def reason(self, users: Sequence[UserContext], k: int = MAX_INTERESTS) -> list[list[Interest]]:
        """Find at most k interests of every user, best first. Raises RuntimeError before `fit`.

        Weights are the probabilities of entering the category within the horizon.
        """
        fitted = self._require()
        found: list[list[Interest]] = []
        for start in range(0, len(users), _CHUNK):
            found += self._reason(users[start : start + _CHUNK], k, fitted)
        return found

    def nodes(self, users: Sequence[UserContext], k: int = MAX_INTERESTS) -> NDArray[np.int32]:
        """Find the nodes that `reason` finds, without the paths: [len(users), k], NO_NODE past a user's last."""
        fitted = self._require()
        found = np.full((len(users), k), NO_NODE, np.int32)
        for start in range(0, len(users), _CHUNK):
            probabilities = self.probabilities(users[start : start + _CHUNK])
            best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
            entered = np.take_along_axis(probabilities, best, axis=1) > 0
            found[start : start + _CHUNK, : best.shape[1]] = np.where(entered, fitted.category_nodes[best], NO_NODE)
        return found

    def probabilities(self, users: Sequence[UserContext]) -> NDArray[np.float32]:
        """P(enter) of every user and top-level category number, [B, C + 1]; 0 where it is not novel."""
        behaviour = Behaviour.of(users, len(self.taxonomy.categories), self._matcher)
        return self._require().model.probabilities(behaviour, [user.profile for user in users])

    def _require(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("TaxonomyReasoner: not fitted; call fit(histories, until) first")
        return self._fitted

    def _windows(self, histories: Histories, until: int) -> tuple[list[dict[str, str]], Behaviour, list[Window]]:
        num_categories = len(self.taxonomy.categories)
        starts = histories.offsets[:-1][np.diff(histories.offsets) > 0]
        owners = histories.users[starts]
        chosen = owners[histories.times[starts] < until]
        if len(chosen) > _MAX_USERS:
            chosen = chosen[np.linspace(0, len(chosen) - 1, _MAX_USERS).astype(np.int64)]
        users: list[int] = chosen.tolist()
        horizon = round(HORIZON_DAYS * _DAY)
        # Half a horizon of history must come before a window, or everything in it looks newly entered.
        earliest = int(histories.times.min()) + horizon // 2 if len(histories.times) else until
        cuts = [until - horizon * (index + 1) for index in range(RATE_WINDOWS + FIT_WINDOWS)]
        row_of = np.full(len(histories), -1, np.int64)
        row_of[users] = np.arange(len(users))
        windows = []
        for cut in (cut for cut in cuts if cut >= earliest):
            behaviour = Behaviour.of(contexts_at(histories, cut, users), num_categories, self._matcher)
            clicked = np.zeros(behaviour.counts.shape, np.bool_)
            inside = (
                (histories.times >= cut) & (histories.times < cut + horizon) & (histories.categories != NO_CATEGORY)
            )
            rows = row_of[histories.users[inside]]
            clicked[rows[rows >= 0], histories.categories[inside][rows >= 0]] = True
            windows.append(Window(behaviour, clicked))
        now = Behaviour.of(contexts_at(histories, until, users), num_categories, self._matcher)
        return [histories.profiles[user] for user in users], now, windows

    def _ground(self, histories: Histories, until: int) -> NDArray[np.int32]:
        """Choose each category's node, [C + 1]: a name may occur under several parents."""
        before = (histories.times < until) & (histories.items > 0)
        nodes = self.taxonomy.row_nodes[histories.items[before] - 1]
        weights = np.exp2((histories.times[before] - until) / (_GROUNDING_HALF_LIFE_DAYS * _DAY))
        clicks = np.bincount(nodes[nodes != NO_NODE], weights=weights[nodes != NO_NODE], minlength=len(self.taxonomy))
        # Without clicks, the node with most items.
        items = np.bincount(self.taxonomy.row_nodes[self.taxonomy.row_nodes != NO_NODE], minlength=len(self.taxonomy))
        chosen = np.full(len(self.taxonomy.categories) + 1, NO_NODE, np.int32)
        level = self.taxonomy.novelty_level
        candidates = [
            node
            for node in self.taxonomy.nodes
            if node.of_catalogue and len(node.path) == level + 1 and node.categories
        ]
        for node in sorted(candidates, key=lambda node: (clicks[node.node_id], items[node.node_id], -node.node_id)):
            chosen[node.categories[0]] = node.node_id
        return chosen

    def _reason(self, users: Sequence[UserContext], k: int, fitted: _Fitted) -> list[list[Interest]]:
        behaviour = Behaviour.of(users, len(self.taxonomy.categories), self._matcher)
        profiles = [user.profile for user in users]
        probabilities = fitted.model.probabilities(behaviour, profiles)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        paths = _Paths(self.taxonomy, self._matcher, fitted.model, fitted.category_nodes, behaviour)
        found = []
        for row, user in enumerate(users):
            categories = [int(category) for category in best[row] if probabilities[row, category] > 0]
            seeds = paths.seeds(row, user, categories)
            found.append(
                [
                    Interest(
                        node_id=int(fitted.category_nodes[category]),
                        weight=(weight := float(probabilities[row, category])),
                        path=paths.path(category, kind, seed, seed_category, weight),
                    )
                    for category, (kind, seed, seed_category) in zip(categories, seeds, strict=True)
                ]
            )
        return found


_Seed = tuple[records_pb2.SeedKind, str, int]
"""Kind, words, and the seed's category (NO_CATEGORY if it is none)."""


class _Paths:
    """Tells how each interest was reached: what in the user's behaviour adds most to its log-odds."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        matcher: SearchMatcher,
        model: EntryModel,
        category_nodes: NDArray[np.int32],
        behaviour: Behaviour,
    ) -> None:
        self._taxonomy = taxonomy
        self._matcher = matcher
        self._model = model
        self._nodes = category_nodes
        self._behaviour = behaviour
        self._coefficients = dict(zip(TERMS, model.coefficients[1:].tolist(), strict=True))
        parents = np.array([taxonomy.nodes[node].parent if node != NO_NODE else NO_NODE for node in category_nodes])
        self._siblings = (parents[:, None] == parents[None, :]) & (parents != NO_NODE)[None, :]
        self._evidence = behaviour.evidence

    def seeds(self, row: int, user: UserContext, categories: list[int]) -> list[_Seed]:
        """Find the seed of each interest of one user."""
        weights = self._coefficients
        # [seeds, interests]: what each category the user knows adds through co-interest.
        added = weights["co-interest"] * self._evidence[row][:, None] * self._model.co_interest[:, categories]
        strongest = added.argmax(axis=0)
        beside = np.where(self._siblings[:, categories], added, -np.inf)
        nearest = beside.argmax(axis=0)
        found = []
        for column, category in enumerate(categories):
            seed = int(strongest[column])
            co_interest = float(added[seed, column])
            if beside[nearest[column], column] >= SAME_PARENT_SHARE * co_interest:
                seed = int(nearest[column])
            value, lift = self._profile(user, category)
            itself = self._category_seed(row, user, category)
            if itself[0] == records_pb2.SEED_KIND_SEARCH:
                found.append(itself)
            elif max(co_interest, weights["profile"] * lift) > WEAK_LOG_ODDS:
                by_profile = weights["profile"] * lift > co_interest
                profile_seed = records_pb2.SEED_KIND_PROFILE, value, NO_CATEGORY
                found.append(profile_seed if by_profile else self._category_seed(row, user, seed))
            # A path should lead somewhere: the category itself is its own seed only where nothing else speaks for it.
            elif self._own_past(row, category) > WEAK_LOG_ODDS:
                found.append(itself)
            else:
                found.append((records_pb2.SEED_KIND_POPULATION, "", NO_CATEGORY))
        return found

    def path(
        self, category: int, kind: records_pb2.SeedKind, seed: str, seed_category: int, score: float
    ) -> InterestPath:
        """Climb from the seed to the core demand and come down to the interest."""
        nodes = self._taxonomy.nodes
        node = nodes[self._nodes[category]]
        demand = node.parent
        relation = records_pb2.RELATION_HYPONYM
        if seed_category not in (NO_CATEGORY, category):
            seed_node = nodes[self._nodes[seed_category]]
            shared = self._taxonomy.shared_ancestor(seed_node.node_id, node.node_id)
            demand = demand if shared == NO_NODE else shared
            if seed_node.parent == node.parent:
                relation = records_pb2.RELATION_CO_HYPONYM
        return InterestPath(
            seed_kind=kind,
            seed=seed,
            core_demand=nodes[demand].name if demand != NO_NODE else seed or node.name,
            latent_interest=node.name,
            relation=relation,
            score=score,
        )

    def _category_seed(self, row: int, user: UserContext, category: int) -> _Seed:
        # A category that is known mostly from searches is told by the query.
        if 2 * self._behaviour.searched[row, category] > self._behaviour.counts[row, category]:
            for query, _ in user.searches:
                if category in self._matcher.match(query):
                    return records_pb2.SEED_KIND_SEARCH, query, category
        return records_pb2.SEED_KIND_CATEGORY, self._taxonomy.categories[category - 1], category

    def _own_past(self, row: int, category: int) -> float:
        """What clicks in the category long ago add to its log-odds, against never."""
        past, age = self._behaviour.counts[row, category], self._behaviour.ages[row, category]
        added = self._coefficients["age"] * (np.log1p(age) - np.log1p(NEVER_DAYS))
        return float(added + self._coefficients["own past"] * np.log1p(past))

    def _profile(self, user: UserContext, category: int) -> tuple[str, float]:
        values = [value for value in user.profile.items() if value in self._model.lifts]
        if not values:
            return "", 0.0
        lifts = [float(self._model.lifts[value][category]) for value in values]
        name, text = values[int(np.argmax(lifts))]
        return f"{name} {text}", float(np.mean(lifts))
