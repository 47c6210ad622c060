"""How the interest vocabulary grows: what reasoners name, clustered into nodes below those it was grounded in.

Names of one top-level category that mean the same become one node, called by the most frequent of them; the others are
its aliases. Names that mean what a node is called already become that node's aliases. Nodes are only ever added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.cluster import AgglomerativeClustering

from serendipity.interests.grounding import Encode
from serendipity.interests.text import clean_text, comparable
from serendipity.offline.configuration import Configuration
from serendipity.offline.interests.taxonomy import KnownNode, TaxonomyNode
from serendipity.v1 import records_pb2

MIN_USERS_OF_NAME = 2
"""Users a text must come from to be shown to others, as a name or an alias: one user's search may be behind it."""

MAX_ALIASES = 32
"""Aliases of a node at most: every snapshot and every grounder holds them."""


class ClustersConfig(Configuration):
    """When interests that reasoners named become nodes of the vocabulary."""

    min_users: Annotated[int, Field(ge=MIN_USERS_OF_NAME)] = 5
    """Users a new node's interests must come from."""
    same_meaning: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Least cosine of two names that mean the same."""
    max_names: Annotated[int, Field(ge=1, le=10_000)] = 2_000
    """Names of one top-level category that are clustered at most, the most frequent; memory grows by their square."""


@dataclass(frozen=True)
class NamedInterest:
    """What a reasoner called an interest of a user (any number that tells users apart), and the node it grounded in."""

    user: int
    node_id: int
    name: str


@dataclass(frozen=True)
class Growth:
    """A vocabulary that has grown.

    known: its nodes by id, the old ones first, with their aliases of now. places: (category number, comparable name) →
    node, of names that have another node now than the one they grounded in.
    """

    known: list[KnownNode]
    places: Mapping[tuple[int, str], int]

    def node_of(self, category: int, name: str) -> int | None:
        """Find the node that a name of a top-level category (number) has now; None: the one it grounded in."""
        return self.places.get((category, comparable(name)))


@dataclass
class _Name:
    """A name of one category: how it is written, whose it is, and what it grounded in, for each user."""

    text: str
    users: set[int]
    nodes: Counter[int]


def grow(
    nodes: Sequence[TaxonomyNode], named: Iterable[NamedInterest], encode: Encode, config: ClustersConfig
) -> Growth:
    """Let the vocabulary grow by what reasoners named.

    nodes: by id; named: grounded in nodes of one top-level category. The same names in any order give the same nodes.
    """
    grown = _Grown(nodes, encode, config)
    by_category: dict[int, dict[str, _Name]] = {}
    for interest in sorted(named, key=lambda interest: (interest.name, interest.user, interest.node_id)):
        (category,) = nodes[interest.node_id].categories
        text = clean_text(interest.name)
        key = comparable(text)
        if key:
            name = by_category.setdefault(category, {}).setdefault(key, _Name(text, set(), Counter()))
            name.users.add(interest.user)
            name.nodes[interest.node_id] += 1
    for category in sorted(by_category):
        grown.place(category, by_category[category])
    return grown.result()


class _Grown:
    """The growing vocabulary."""

    def __init__(self, nodes: Sequence[TaxonomyNode], encode: Encode, config: ClustersConfig) -> None:
        self._nodes = nodes
        self._encode = encode
        self._config = config
        self._known = [KnownNode(node.path, node.origin, node.aliases) for node in nodes]
        self._paths = {node.path for node in nodes}
        self._of_category: dict[int, list[TaxonomyNode]] = {}
        for node in nodes:
            if len(node.categories) == 1:
                self._of_category.setdefault(node.categories[0], []).append(node)
        self._places: dict[tuple[int, str], int] = {}

    def result(self) -> Growth:
        return Growth(self._known, self._places)

    def place(self, category: int, names: Mapping[str, _Name]) -> None:
        """Place the names (by comparable text) of one top-level category."""
        beside = self._of_category[category]
        called = {comparable(name) for node in beside for name in (node.name, *node.aliases)}
        # Most users first, so that what is cut off is what is rare; ties by text.
        open_names = sorted(names.keys() - called, key=lambda key: (-len(names[key].users), key))
        open_names = open_names[: self._config.max_names]
        if not open_names:
            return
        vectors = self._encode([names[key].text for key in open_names])
        nearest, similarities = self._nearest(vectors, beside)
        of_nodes = similarities >= self._config.same_meaning
        for place in np.flatnonzero(of_nodes).tolist():
            self._become_alias(category, open_names[place], names, beside[int(nearest[place])].node_id)
        rest = np.flatnonzero(~of_nodes)
        for members in _clusters(vectors[rest], self._config.same_meaning):
            self._become_node(category, [open_names[rest[member]] for member in members], names)

    def _nearest(
        self, vectors: NDArray[np.float32], beside: Sequence[TaxonomyNode]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        similarities = vectors @ self._encode([node.name for node in beside]).T
        nearest = similarities.argmax(axis=1)
        return nearest, similarities[np.arange(len(nearest)), nearest]

    def _become_alias(self, category: int, key: str, names: Mapping[str, _Name], node_id: int) -> None:
        self._places[category, key] = node_id
        node = self._known[node_id]
        if len(names[key].users) >= MIN_USERS_OF_NAME and len(node.aliases) < MAX_ALIASES:
            self._known[node_id] = replace(node, aliases=(*node.aliases, names[key].text))

    def _become_node(self, category: int, keys: Sequence[str], names: Mapping[str, _Name]) -> None:
        """Make a node of names that mean the same, the most frequent first."""
        shown = [key for key in keys if len(names[key].users) >= MIN_USERS_OF_NAME]
        users = set().union(*(names[key].users for key in keys))
        grounded: Counter[int] = Counter()
        for key in keys:
            for node_id, times in names[key].nodes.items():
                grounded[self._in_catalogue(node_id)] += times
        parent = min(grounded, key=lambda node_id: (-grounded[node_id], node_id))
        path = (*self._known[parent].path, names[shown[0]].text) if shown else ()
        # A path that exists is of a node that has lost all its items.
        if len(users) < self._config.min_users or not path or path in self._paths:
            return
        node_id = len(self._known)
        self._known.append(KnownNode(path, records_pb2.NODE_ORIGIN_REASONER))
        for key in shown[1:]:
            self._become_alias(category, key, names, node_id)
        self._places |= {(category, key): node_id for key in keys}

    def _in_catalogue(self, node_id: int) -> int:
        """Climb to a node of the catalogue: reasoners' nodes have no nodes below them."""
        while not self._nodes[node_id].of_catalogue:
            node_id = self._nodes[node_id].parent
        return node_id


def _clusters(vectors: NDArray[np.float32], same_meaning: float) -> list[list[int]]:
    """Cluster [n, D] vectors of norm 1 so that all of a cluster mean the same (complete linkage); each ascending."""
    if len(vectors) < 2:
        return [[i] for i in range(len(vectors))]
    # Float64 and ties broken by place: the same names always make the same clusters.
    distances = np.clip(1 - vectors.astype(np.float64) @ vectors.astype(np.float64).T, 0, 2)
    np.fill_diagonal(distances, 0)
    labels = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=1 - same_meaning + 1e-9
    ).fit_predict(distances)
    clusters: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        clusters.setdefault(label, []).append(place)
    return list(clusters.values())
