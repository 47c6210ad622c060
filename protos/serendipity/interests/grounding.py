"""How what a model names becomes a node of the interest vocabulary, or nothing.

An interest grounds in a node by name, by alias, or by the text encoder's similarity at a threshold tuned on
validation. What does not ground is dropped and counted: nothing a model made up reaches a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from serendipity.interests.answer import Proposal
from serendipity.interests.prompt import UserFacts, bounded
from serendipity.interests.text import comparable, is_name
from serendipity.v1 import records_pb2

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → [n, D] float32 of norm 1."""

DEMAND_SHARE = 0.75
"""Share of the threshold that a core demand must reach: it is more general than any node."""


class Method(Enum):
    """How a name was grounded."""

    EXACT = "exact"
    ALIAS = "alias"
    ENCODER = "encoder"


@dataclass(frozen=True)
class GroundingNode:
    """A node that interests may ground in.

    node_id: row in the vectors; path: from the top of the taxonomy to the node; category: number of its top-level
    category; aliases: other names; num_items: of equal names the node with more items is taken.
    """

    node_id: int
    path: tuple[str, ...]
    category: int
    aliases: tuple[str, ...] = ()
    num_items: int = 0

    @property
    def name(self) -> str:
        """The last level of the path."""
        return self.path[-1]


@dataclass(frozen=True)
class Grounding:
    """Where a name grounds. similarity: cosine, 1 where it grounds by name or alias; says_so: the text names it."""

    node: GroundingNode
    method: Method
    similarity: float
    says_so: bool = True


class Grounder:
    """Grounds names in nodes.

    nodes: those of one top-level category each; categories: names of the top-level categories, by number − 1;
    vectors: [num_nodes, D] float32 of norm 1, by node id; encode: the encoder that made them; threshold: least cosine.
    """

    def __init__(
        self,
        nodes: Sequence[GroundingNode],
        categories: Sequence[str],
        vectors: NDArray[np.float32],
        encode: Encode,
        threshold: float,
    ) -> None:
        self.threshold = threshold
        self._encode = encode
        self._nodes = sorted(nodes, key=lambda node: (-node.num_items, node.node_id))
        self._vectors = vectors[[node.node_id for node in self._nodes]]
        self._categories = np.array([node.category for node in self._nodes], np.int64)
        self._numbers = {comparable(name): number for number, name in enumerate(categories, 1)}
        self._names: dict[str, list[GroundingNode]] = {}
        self._aliases: dict[str, list[GroundingNode]] = {}
        # Names above the nodes as well: a department of many categories is a demand, though nothing grounds in it.
        self._levels = {comparable(name) for node in self._nodes for name in node.path}
        for node in self._nodes:
            self._names.setdefault(comparable(node.name), []).append(node)
            for alias in node.aliases:
                self._aliases.setdefault(comparable(alias), []).append(node)
        # Names of signs alone ("-") leave nothing to compare; nor do texts that are missing.
        for names in (self._numbers, self._names, self._aliases):
            names.pop("", None)

    def ground(self, proposals: Sequence[Proposal]) -> list[Grounding | None]:
        """Ground each proposal, in their order.

        A category that exists binds the interest to the nodes of that category; where its text is like none of them
        it grounds in the category as such, and `says_so` is False: the text must not be shown. Without one the text
        alone decides.
        """
        found: list[Grounding | None] = [None] * len(proposals)
        open_places: list[int] = []
        for place, proposal in enumerate(proposals):
            number = self._numbers.get(comparable(proposal.category), 0)
            found[place] = self._named(proposal.interest, number)
            if found[place] is None:
                open_places.append(place)
        texts = [proposals[place].interest or proposals[place].category for place in open_places]
        similarities = self.similarities(texts)
        for place, text, row in zip(open_places, texts, similarities, strict=True):
            number = self._numbers.get(comparable(proposals[place].category), 0)
            # A category alone is itself, not the one of its nodes that sounds most like it.
            found[place] = self._alike(text if proposals[place].interest or not number else "", number, row)
        return found

    def speaks_of_goods(self, texts: Sequence[str]) -> list[bool]:
        """Tell which texts may be shown as core demands: names of nodes and of what is above them, or like some node.

        Anything else a model wrote, or was made to write by what a user typed, is none.
        """
        named = [
            is_name(text) and (comparable(text) in self._levels or self.node_of(text) is not None) for text in texts
        ]
        asked = sorted({text for text, known in zip(texts, named, strict=True) if not known and is_name(text)})
        rows = self.similarities(asked)
        like = {
            text: bool(row.size) and float(row.max()) >= DEMAND_SHARE * self.threshold
            for text, row in zip(asked, rows, strict=True)
        }
        return [known or like.get(text, False) for text, known in zip(texts, named, strict=True)]

    def similarities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each text with each node, [len(texts), num_nodes] float32, most items first (then by id)."""
        if not texts or not len(self._nodes):
            return np.empty((len(texts), 0), np.float32)
        similarities: NDArray[np.float32] = self._encode(texts) @ self._vectors.T
        return similarities

    def is_category_of(self, name: str, node: GroundingNode) -> bool:
        """Tell whether a name is that of the top-level category that a node lies in."""
        return self._numbers.get(comparable(name)) == node.category

    def texts(self, proposals: Sequence[Proposal]) -> list[str]:
        """List every text that `ground_answer` may have encoded, for callers that encode ahead (asynchronously)."""
        said = (text for p in proposals for text in (p.interest or p.category, p.demand) if text)
        return list(dict.fromkeys(said))

    def node_of(self, name: str) -> GroundingNode | None:
        """Find the node of a name or alias; None if there is none."""
        grounded = self._named(name, 0)
        return grounded.node if grounded else None

    def _named(self, text: str, number: int) -> Grounding | None:
        key = comparable(text)
        for method, names in ((Method.EXACT, self._names), (Method.ALIAS, self._aliases)):
            for node in names.get(key, ()):
                if number in (0, node.category):
                    return Grounding(node, method, 1.0)
        return None

    def _alike(self, text: str, number: int, row: NDArray[np.float32]) -> Grounding | None:
        inside = np.flatnonzero(self._categories == number) if number else np.arange(len(row))
        if not len(inside):
            return None
        best = int(inside[np.argmax(row[inside])])
        if text and row[best] >= self.threshold:
            similarity = min(1.0, float(row[best]))
            return Grounding(self._nodes[best], Method.ENCODER, similarity, says_so=is_name(text))
        if not number:
            return None
        # The node with most items above the others of the category: the shortest path.
        whole = min((self._nodes[i] for i in inside), key=lambda node: len(node.path))
        return Grounding(whole, Method.EXACT, 1.0, says_so=False)


KEPT = "kept"
SURPLUS = "surplus"


@dataclass(frozen=True)
class GroundedInterest:
    """An interest that may be stored: its node and the path to it."""

    node: GroundingNode
    path: records_pb2.InterestPath
    method: Method
    similarity: float


@dataclass(frozen=True)
class GroundedAnswer:
    """What remains of an answer. interests: best first; dropped: reason → how many proposals.

    Reasons: "ungrounded", "known" (a category among the latest 200 clicks), "repeated" (a node named before).
    outcomes: of each proposal, in their order: KEPT, SURPLUS (past the number wanted) or the reason it was dropped.
    """

    interests: tuple[GroundedInterest, ...]
    dropped: Mapping[str, int]
    outcomes: tuple[str, ...] = ()


def ground_answer(
    proposals: Sequence[Proposal],
    facts: UserFacts,
    grounder: Grounder,
    known: Collection[int],
    num_interests: int,
) -> GroundedAnswer:
    """Ground an answer's proposals and keep the first num_interests that may be stored.

    known: numbers of the categories among the user's latest 200 clicks, which are not novel. A demand or interest that
    speaks of nothing in the vocabulary, or an address in it, gives way to the name of the node or of the one above it;
    a seed that the model was not told, to one that it was told and that lies beside the interest, or to none.
    """
    told = bounded(facts)
    kept: list[tuple[Proposal, Grounding]] = []
    outcomes: list[str] = []
    seen: set[int] = set()
    for proposal, grounding in zip(proposals, grounder.ground(proposals), strict=True):
        if grounding is None:
            outcomes.append("ungrounded")
        elif grounding.node.category in known:
            outcomes.append("known")
        elif grounding.node.node_id in seen:
            outcomes.append("repeated")
        elif len(kept) == num_interests:
            outcomes.append(SURPLUS)
        else:
            outcomes.append(KEPT)
            seen.add(grounding.node.node_id)
            kept.append((proposal, grounding))
    demands = grounder.speaks_of_goods([proposal.demand for proposal, _ in kept])
    return GroundedAnswer(
        interests=tuple(
            GroundedInterest(
                node=grounding.node,
                path=_path(proposal, proposal.demand if shown else "", grounding, told, grounder),
                method=grounding.method,
                similarity=grounding.similarity,
            )
            for (proposal, grounding), shown in zip(kept, demands, strict=True)
        ),
        dropped=Counter(outcome for outcome in outcomes if outcome not in (KEPT, SURPLUS)),
        outcomes=tuple(outcomes),
    )


def _path(
    proposal: Proposal, demand: str, grounding: Grounding, told: UserFacts, grounder: Grounder
) -> records_pb2.InterestPath:
    node = grounding.node
    kind, seed = seed_of(proposal.seed, told)
    # A path must not lead back to where it began.
    if kind == records_pb2.SEED_KIND_CATEGORY and grounder.is_category_of(seed, node):
        kind, seed = records_pb2.SEED_KIND_PAST, ""
    if kind == records_pb2.SEED_KIND_SEARCH and comparable(seed) == comparable(node.name):
        demand = node.name
    if kind == records_pb2.SEED_KIND_POPULATION:
        kind, seed = _related_seed(node, told, grounder)
        # What they share is the demand that leads from one to the other.
        demand = node.path[-2] if seed else demand
    beside = grounder.node_of(seed) if kind != records_pb2.SEED_KIND_PROFILE else None
    is_beside = beside is not None and len(beside.path) > 1 and beside.path[:-1] == node.path[:-1]
    return records_pb2.InterestPath(
        seed_kind=kind,
        seed=seed,
        core_demand=demand or (node.path[-2] if len(node.path) > 1 else node.name),
        latent_interest=proposal.interest if grounding.says_so and proposal.interest else node.name,
        relation=records_pb2.RELATION_CO_HYPONYM if is_beside else records_pb2.RELATION_HYPONYM,
        score=grounding.similarity,
    )


def _related_seed(node: GroundingNode, told: UserFacts, grounder: Grounder) -> tuple[records_pb2.SeedKind, str]:
    """Find a search, else a recent category, with which an interest shares the node above: a path that the taxonomy
    bears out, where the model named no seed that it was told."""
    seeds = (
        *((records_pb2.SEED_KIND_SEARCH, query) for query in told.searches),
        *((records_pb2.SEED_KIND_CATEGORY, fact.name) for fact in told.recent),
    )
    for kind, seed in seeds:
        found = grounder.node_of(seed)
        if found is not None and len(found.path) > 1 and found.path[:-1] == node.path[:-1]:
            return kind, seed
    return records_pb2.SEED_KIND_POPULATION, ""


def seed_of(seed: str, told: UserFacts) -> tuple[records_pb2.SeedKind, str]:
    """Find what the model was told that the seed is; a seed it was not told is no reason to give a user.

    told: facts as `prompt.bounded` leaves them.
    """
    key = comparable(seed)
    if not key:
        return records_pb2.SEED_KIND_POPULATION, ""
    for query in told.searches:
        if comparable(query) == key:
            return records_pb2.SEED_KIND_SEARCH, query
    for name in (*(fact.name for fact in (*told.recent, *told.earlier)), *told.titles):
        if comparable(name) == key:
            return records_pb2.SEED_KIND_CATEGORY, name
    for name, value in told.profile.items():
        if key in (comparable(f"{name} {value}"), comparable(value)):
            return records_pb2.SEED_KIND_PROFILE, f"{name} {value}"
    return records_pb2.SEED_KIND_POPULATION, ""
