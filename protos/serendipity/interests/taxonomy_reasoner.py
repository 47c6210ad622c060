"""The reasoner without a language model: hypernym up, hyponym or co-hyponym down, by co-interest in the data.

Latent interests are the top-level categories that the user is most likely to enter within the next H days (see
`entry_model`), none of them among the latest 200 clicks. The path to one starts at what speaks for it most: a search
for it, another category the user clicks in or searched, a profile attribute; failing these, the category's own past
(clicked long ago, not lately), which is no place to start from: such a path has no seed; failing that, the population.
From there

* seed and interest share an ancestor below the root: that is the core demand; the interest is a co-hyponym of the
  seed where both are its children, a hyponym of the demand otherwise;
* they share none (the climb leads out of the seed's own branch): the demand is the interest's own parent, which users
  of the seed turn to, and the interest its hyponym;
* the interest has no parent: the co-interest itself is all there is; the demand is the seed, the interest beside it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.behaviour import NEVER_DAYS, Behaviour
from serendipity.interests.entry_model import TERMS, EntryModel
from serendipity.interests.reasoner import MAX_INTERESTS, Interest, InterestPath, UserContext
from serendipity.interests.search_matching import SearchMatcher
from serendipity.interests.text import clean_text, comparable
from serendipity.novelty import NO_CATEGORY
from serendipity.v1 import records_pb2

NO_NODE = -1

_CHUNK = 4_096
"""Users reasoned about at once: bounds memory at some ten matrices of this many rows."""

SAME_PARENT_SHARE = 0.5
"""A seed beside the interest is preferred when it speaks for it at least this much as strongly as the strongest."""

WEAK_LOG_ODDS = 0.05
"""Evidence below it is no reason: the path starts at the population."""


@dataclass(frozen=True)
class CategoryNode:
    """The node that interests in a category are grounded in. path: from the top of the taxonomy to the node."""

    node_id: int
    path: tuple[str, ...]


class TaxonomyReasoner:
    """Latent interests from an entry model and the nodes of its categories; a build and near-line reason alike.

    nodes: of the categories, by number − 1; matcher: of the searches.
    """

    name = "taxonomy"

    def __init__(self, model: EntryModel, nodes: Sequence[CategoryNode], matcher: SearchMatcher) -> None:
        self.model = model
        self.category_nodes = nodes
        self._matcher = matcher
        parents: dict[tuple[str, ...], int] = {}
        numbers = np.array([0, *(parents.setdefault(node.path[:-1], len(parents) + 1) for node in nodes)])
        has_parent = np.array([False, *(len(node.path) > 1 for node in nodes)])
        self._siblings = (numbers[:, None] == numbers[None, :]) & has_parent

    @classmethod
    def read(
        cls,
        path: Path,
        num_categories: int,
        node_paths: Mapping[int, tuple[str, ...]],
        names: Iterable[tuple[str, int]],
    ) -> Self:
        """Read what `content` gave from a file.

        node_paths: of interest nodes, by id; names: those that searches are matched with. Raises ValueError or OSError
        naming the file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                columns = {name: stored[name] for name in stored.files}
            nodes = [CategoryNode(node_id, node_paths[node_id]) for node_id in columns.pop("node_ids").tolist()]
            lifted = map(tuple, json.loads(str(columns.pop("lifted"))))
            model = EntryModel(**{**columns, "lifts": dict(zip(lifted, columns["lifts"], strict=True))})
            widths = {column.shape[-1] for column in (model.rates, model.shares, model.co_interest, columns["lifts"])}
            widths.add(len(nodes) + 1)
            if widths != {num_categories + 1} or model.coefficients.shape != (1 + len(TERMS),):
                raise ValueError(f"found columns of {sorted(widths)}, expected {num_categories + 1}")
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: found no taxonomy reasoner of these nodes ({error})") from error
        return cls(model, nodes, SearchMatcher(names))

    def content(self) -> bytes:
        """Give the entry model and the categories' nodes as an .npz archive, the same for the same reasoner."""
        model, file = self.model, io.BytesIO()
        np.savez(
            file,
            rates=model.rates,
            shares=model.shares,
            co_interest=model.co_interest,
            lifted=np.array(json.dumps(list(model.lifts), ensure_ascii=False)),
            lifts=np.array(list(model.lifts.values()), np.float32).reshape(-1, len(model.rates)),
            coefficients=model.coefficients,
            node_ids=np.array([node.node_id for node in self.category_nodes], np.int64),
        )
        return file.getvalue()

    def reason(self, users: Sequence[UserContext], k: int = MAX_INTERESTS) -> list[list[Interest]]:
        """Find at most k interests of every user, best first.

        Weights are the probabilities of entering the category within the horizon.
        """
        found: list[list[Interest]] = []
        for start in range(0, len(users), _CHUNK):
            chunk = users[start : start + _CHUNK]
            probabilities = self.probabilities(chunk)
            best = likeliest(probabilities, k)
            chosen = [[(c, float(row[c])) for c in of_user] for row, of_user in zip(probabilities, best, strict=True)]
            found += self.interests(chunk, chosen)
        return found

    def nodes(self, users: Sequence[UserContext], k: int = MAX_INTERESTS) -> NDArray[np.int32]:
        """Find the nodes that `reason` finds, without the paths: [len(users), k], NO_NODE past a user's last."""
        found = np.full((len(users), k), NO_NODE, np.int32)
        node_ids = np.array([NO_NODE, *(node.node_id for node in self.category_nodes)], np.int32)
        for start in range(0, len(users), _CHUNK):
            best = likeliest(self.probabilities(users[start : start + _CHUNK]), k)
            for place, categories in enumerate(best, start):
                found[place, : len(categories)] = node_ids[categories]
        return found

    def probabilities(self, users: Sequence[UserContext]) -> NDArray[np.float32]:
        """P(enter) of every user and top-level category number, [B, C + 1]; 0 where it is not novel."""
        return self.model.probabilities(self._behaviour(users), [user.profile for user in users])

    def interests(
        self, users: Sequence[UserContext], chosen: Sequence[Sequence[tuple[int, float]]]
    ) -> list[list[Interest]]:
        """Find the paths to categories. chosen: of each user (category number, weight), in the order wanted."""
        behaviour = self._behaviour(users)
        found = []
        for row, (user, of_user) in enumerate(zip(users, chosen, strict=True)):
            seeds = self._seeds(behaviour, row, user, [category for category, _ in of_user])
            found.append(
                [
                    Interest(self.category_nodes[category - 1].node_id, weight, self._path(category, seed, weight))
                    for (category, weight), seed in zip(of_user, seeds, strict=True)
                ]
            )
        return found

    def _behaviour(self, users: Sequence[UserContext]) -> Behaviour:
        return Behaviour.of(users, len(self.category_nodes), self._matcher)

    def _seeds(self, behaviour: Behaviour, row: int, user: UserContext, categories: list[int]) -> list[_Seed]:
        """Find what adds most to the log-odds of each interest of one user."""
        weights = dict(zip(TERMS, self.model.coefficients[1:].tolist(), strict=True))
        # [seeds, interests]: what each category the user knows adds through co-interest.
        evidence = behaviour.evidence[row][:, None]
        added = weights["co-interest"] * evidence * self.model.co_interest[:, categories]
        strongest = added.argmax(axis=0)
        beside = np.where(self._siblings[:, categories], added, -np.inf)
        # A path must not lead back to where it began.
        beside[categories, range(len(categories))] = -np.inf
        nearest = beside.argmax(axis=0)
        found = []
        for column, category in enumerate(categories):
            seed = int(strongest[column])
            co_interest = float(added[seed, column])
            if beside[nearest[column], column] >= SAME_PARENT_SHARE * co_interest:
                seed = int(nearest[column])
            value, lift = self._profile(user, category)
            by_profile = weights["profile"] * lift
            query = self._query(behaviour, row, user, category)
            if query:
                found.append(_Seed(records_pb2.SEED_KIND_SEARCH, query, category))
            elif max(co_interest, by_profile) <= WEAK_LOG_ODDS:
                past = self._own_past(behaviour, row, category) > WEAK_LOG_ODDS
                found.append(_Seed(records_pb2.SEED_KIND_PAST if past else records_pb2.SEED_KIND_POPULATION))
            elif by_profile > co_interest:
                found.append(_Seed(records_pb2.SEED_KIND_PROFILE, value))
            elif query := self._query(behaviour, row, user, seed):
                found.append(_Seed(records_pb2.SEED_KIND_SEARCH, query, seed))
            else:
                found.append(_Seed(records_pb2.SEED_KIND_CATEGORY, self.category_nodes[seed - 1].path[-1], seed))
        return found

    def _path(self, category: int, seed: _Seed, score: float) -> InterestPath:
        """Climb from the seed to the core demand and come down to the interest."""
        path = self.category_nodes[category - 1].path
        demand = path[-2] if len(path) > 1 else seed.text or path[-1]
        relation = records_pb2.RELATION_HYPONYM
        if seed.category == category and comparable(seed.text) == comparable(path[-1]):
            # Up and down again would lead back to where it began.
            demand = path[-1]
        if seed.category not in (NO_CATEGORY, category):
            of_seed = self.category_nodes[seed.category - 1].path
            shared = [name for depth, name in enumerate(path[:-1], 1) if path[:depth] == of_seed[:depth]]
            demand = shared[-1] if shared else demand
            if of_seed[:-1] == path[:-1]:
                relation = records_pb2.RELATION_CO_HYPONYM
        return InterestPath(
            seed_kind=seed.kind,
            seed=seed.text,
            core_demand=demand,
            latent_interest=path[-1],
            relation=relation,
            score=score,
        )

    def _query(self, behaviour: Behaviour, row: int, user: UserContext, category: int) -> str:
        """Find the search that a category is known from, if it is known mostly from searches."""
        if 2 * behaviour.searched[row, category] <= behaviour.counts[row, category]:
            return ""
        told = (query for query, _ in user.searches if category in self._matcher.match(query))
        return clean_text(next(told, ""))

    def _own_past(self, behaviour: Behaviour, row: int, category: int) -> float:
        """What clicks in the category long ago add to its log-odds, against never."""
        weights = dict(zip(TERMS, self.model.coefficients[1:].tolist(), strict=True))
        past, age = behaviour.counts[row, category], behaviour.ages[row, category]
        added = weights["age"] * (np.log1p(age) - np.log1p(NEVER_DAYS))
        return float(added + weights["own past"] * np.log1p(past))

    def _profile(self, user: UserContext, category: int) -> tuple[str, float]:
        values = [value for value in user.profile.items() if value in self.model.lifts]
        if not values:
            return "", 0.0
        lifts = [float(self.model.lifts[value][category]) for value in values]
        name, text = values[int(np.argmax(lifts))]
        return f"{name} {text}", float(np.mean(lifts))


@dataclass(frozen=True)
class _Seed:
    """Where a path begins. category: the seed's, NO_CATEGORY if it is none."""

    kind: records_pb2.SeedKind
    text: str = ""
    category: int = NO_CATEGORY


def likeliest(probabilities: NDArray[np.float32], k: int) -> list[list[int]]:
    """List at most k category numbers of each row of P(enter), likeliest first; none of probability 0."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [
        [category for category in of_user if row[category] > 0]
        for of_user, row in zip(best.tolist(), probabilities, strict=True)
    ]
