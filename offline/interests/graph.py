"""The knowledge graph of one user: what was known, the demands behind it, and the interests it led to.

Dewu (arXiv 2508.04032, section "Two-hop Reasoning Process"): v1 is the static profile, a search or a behaviour; v2 a
core demand above it (hypernym); v3 a latent interest below or beside (hyponym, co-hyponym), bound to the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from serendipity.interests.reasoner import Interest
from serendipity.v1 import records_pb2

NodeKind = Literal["profile", "search", "behaviour", "past", "population", "core demand", "latent interest"]
RelationName = Literal["hypernym", "hyponym", "co-hyponym"]

SEED_KINDS: Mapping[int, NodeKind] = {
    records_pb2.SEED_KIND_SEARCH: "search",
    records_pb2.SEED_KIND_CATEGORY: "behaviour",
    records_pb2.SEED_KIND_PROFILE: "profile",
    records_pb2.SEED_KIND_POPULATION: "population",
    records_pb2.SEED_KIND_PAST: "past",
}
RELATIONS: Mapping[int, RelationName] = {
    records_pb2.RELATION_HYPONYM: "hyponym",
    records_pb2.RELATION_CO_HYPONYM: "co-hyponym",
}

LEVELS: Mapping[NodeKind, int] = dict.fromkeys(SEED_KINDS.values(), 1) | {"core demand": 2, "latent interest": 3}


class GraphError(Exception):
    """A user graph is not one: names the field, what was found and what was expected."""


@dataclass(frozen=True)
class GraphNode:
    """A node. key: unique in the graph; level: 1, 2 or 3; text: clean.

    Latent interests only: interest_node: id in the interest vocabulary, None where it did not ground; grounded_by:
    "exact", "alias", "encoder" or "taxonomy"; similarity: cosine, 0 where it did not ground; dropped: why it was not
    kept ("ungrounded", "known", "repeated", "surplus"), empty where it was.
    """

    key: str
    kind: NodeKind
    text: str
    interest_node: int | None = None
    grounded_by: str = ""
    similarity: float = 0.0
    dropped: str = ""

    @property
    def level(self) -> int:
        """Hop distance from what is known, from 1."""
        return LEVELS[self.kind]


@dataclass(frozen=True)
class GraphEdge:
    """An edge, from level 1 to 2 ("hypernym") or 2 to 3. score: 0 to 1; agents: who said so."""

    source: str
    target: str
    relation: RelationName
    score: float
    agents: tuple[str, ...]


@dataclass(frozen=True)
class UserGraph:
    """The graph of a user as of a moment (Unix seconds)."""

    user_id: str
    reasoner: str
    generated_at: int
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

    def __post_init__(self) -> None:
        keys = {node.key: node for node in self.nodes}
        if len(keys) != len(self.nodes):
            raise GraphError(f"graph of {self.user_id!r}: nodes: found a key twice, expected each once")
        for edge in self.edges:
            ends = [keys[key].level if key in keys else 0 for key in (edge.source, edge.target)]
            expected = [1, 2] if edge.relation == "hypernym" else [2, 3]
            if ends != expected:
                raise GraphError(
                    f"graph of {self.user_id!r}: {edge.relation} {edge.source!r} → {edge.target!r}: found levels "
                    f"{ends}, expected {expected}"
                )

    @property
    def interests(self) -> list[GraphNode]:
        """Latent interests that were kept."""
        return [node for node in self.nodes if node.level == 3 and not node.dropped]

    def to_json(self) -> str:
        """Write as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> UserGraph:
        """Make of plain lists and dictionaries, as in JSON or Parquet. Raises GraphError."""
        try:
            return TypeAdapter(cls).validate_python(fields)
        except ValidationError as error:
            raise GraphError(f"graph: {error}; expected the fields of a user graph") from error


@dataclass(frozen=True)
class Hop:
    """One path that an agent proposed, as it goes into a graph. interest: its node, without key."""

    seed_kind: int
    seed: str
    core_demand: str
    interest: GraphNode
    relation: int
    score: float
    agent: str


def graph_of(user_id: str, reasoner: str, generated_at: int, hops: Sequence[Hop]) -> UserGraph:
    """Join the paths of a user: equal nodes and edges become one.

    Interests are equal when they ground in the same node, or in none and have the same text; what one agent's
    answer kept is kept. An edge has the highest of its scores, and every agent that drew it.
    """
    nodes: dict[str, GraphNode] = {}
    edges: dict[tuple[str, str], GraphEdge] = {}
    for hop in hops:
        kind = SEED_KINDS.get(hop.seed_kind, "population")
        seed = GraphNode(f"1 {kind}: {hop.seed}", kind, hop.seed)
        demand = GraphNode(f"2 {hop.core_demand}", "core demand", hop.core_demand)
        found = hop.interest
        name = found.text if found.interest_node is None else f"#{found.interest_node}"
        interest = replace(found, key=f"3 {name}")
        for node in (seed, demand, interest):
            known = nodes.setdefault(node.key, node)
            if known.dropped and not node.dropped:
                nodes[node.key] = node
        relation = RELATIONS.get(hop.relation, "hyponym")
        _draw(edges, GraphEdge(seed.key, demand.key, "hypernym", hop.score, (hop.agent,)))
        _draw(edges, GraphEdge(demand.key, interest.key, relation, hop.score, (hop.agent,)))
    return UserGraph(user_id, reasoner, generated_at, tuple(nodes.values()), tuple(edges.values()))


def graph_of_interests(user_id: str, reasoner: str, generated_at: int, interests: Sequence[Interest]) -> UserGraph:
    """Make the graph of a reasoner that answers with paths alone: it is the only agent, and nothing was dropped."""
    hops = [
        Hop(
            seed_kind=interest.path.seed_kind,
            seed=interest.path.seed,
            core_demand=interest.path.core_demand,
            interest=GraphNode(
                key="",
                kind="latent interest",
                text=interest.path.latent_interest,
                interest_node=interest.node_id,
                grounded_by="taxonomy",
                similarity=1.0,
            ),
            relation=interest.path.relation,
            score=interest.path.score,
            agent=reasoner,
        )
        for interest in interests
    ]
    return graph_of(user_id, reasoner, generated_at, hops)


def _draw(edges: dict[tuple[str, str], GraphEdge], edge: GraphEdge) -> None:
    known = edges.get((edge.source, edge.target))
    if known:
        agents = tuple(dict.fromkeys((*known.agents, *edge.agents)))
        edge = replace(known, score=max(known.score, edge.score), agents=agents)
    edges[edge.source, edge.target] = edge
