"""The tower's search per interest by vectors of the graph's nodes, in the place of or beside those of texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph.later import DIM, Later, graph_before, table
from serendipity.offline.evaluate.held_out import Score
from serendipity.offline.graph.spectral import spectral_vectors
from serendipity.offline.towers.builder import Prepared, prepare
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.dual_tower import DualTower, item_content
from serendipity.offline.towers.interests import NO_NODE, InterestNodes, InterestsAt
from serendipity.offline.towers.item_tower import ItemContent
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.towers.trainer import train

_DEPTHS = (20, 100)
_PARTS = ("the user's own row", "the interests' rows by score", "the interests' rows in turn")
_TEXT = "text (today)"


def tower_section(
    later: Later,
    nodes: InterestNodes,
    interests_at: InterestsAt,
    config: TowersConfig,
    tell: Callable[[str], None],
) -> list[str]:
    """Train the towers on each kind of node vectors and judge them. nodes: with the vectors of today."""
    with limited_threads(config.trainer.threads):
        prepared = prepare(later.histories, later.catalogue, nodes, interests_at, config, later.held_out.until)
        # Made of what came before all rows: the towers must not learn from vectors that know the labels.
        earliest = min(rows.moment.time for rows in prepared.fit)
        graph = graph_before(later.histories, later.catalogue, earliest, later.choice)
        items = spectral_vectors(graph, DIM, later.choice.power).item_vectors
        of_nodes = node_vectors(nodes, items)
        content = item_content(later.catalogue, nodes, interest=config.item_interest)
        kinds = {
            _TEXT: nodes.vectors,
            "graph": of_nodes,
            "both": np.concatenate([nodes.vectors, of_nodes], axis=1) / np.float32(np.sqrt(2)),
            "nothing": np.zeros_like(of_nodes),
        }
        found = {}
        for name, vectors in kinds.items():
            tell(f"readers: towers, {name}")
            seen = replace(nodes, vectors=vectors)
            found[name] = _recall(_train(prepared, content, seen, config), prepared, seen)
    lines = ["## Reader: vectors of the towers' interests", ""]
    for part, title in enumerate(_PARTS):
        for depth in _DEPTHS:
            values = {name: each[part, depth] for name, each in found.items()}
            lines += table(f"novel recall@{depth}, {title}", values, (_TEXT,))
    return [
        *lines,
        "Towers of the first training (early stopping on the clicks that are judged), "
        f"{len(prepared.validation.novel):,} users drawn once. Graph: mean vector of a node's items, of length 1, from "
        "the clicks before all training rows; both: the two end to end; nothing: zeros. The item tower has the texts "
        "throughout. By score: an item has the highest score of those interests of the user that hold it. In turn: the "
        "best item of every interest, then the second, and so on.",
        "",
    ]


def node_vectors(nodes: InterestNodes, items: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the vectors of each node's items, to length 1: [N, d]; zero for a node without any."""
    sums = np.zeros((len(nodes.vectors), items.shape[1]), np.float32)
    for column in nodes.item_nodes.T:
        held = column != NO_NODE
        np.add.at(sums, column[held], items[held])
    vectors: NDArray[np.float32] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return vectors


def _train(prepared: Prepared, content: ItemContent, nodes: InterestNodes, config: TowersConfig) -> DualTower:
    assembler = replace(prepared.builder.assembler, interest_dim=nodes.vectors.shape[1])
    statistics = prepared.now.items.statistics.shape[1]
    towers = DualTower(prepared.catalogue, assembler, content, statistics, config)
    validation = replace(prepared.validation, node_vectors=nodes.vectors)
    categories = prepared.catalogue.item_categories
    train(towers, prepared.fit, categories, nodes, config, validate=validation.score)
    return towers


def _recall(towers: DualTower, prepared: Prepared, nodes: InterestNodes) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Recall of novel targets by (place in _PARTS, k): [users] each."""
    validation = prepared.validation
    held_out, moment, targets = validation.held_out, validation.moment, validation.novel
    vectors = towers.user_vectors(moment, np.searchsorted(moment.users, targets.users), nodes.vectors)
    held_by = moment.nodes[np.searchsorted(moment.users, targets.users)]
    items = towers.item_vectors(moment.items)[held_out.candidates]
    grounded = nodes.item_nodes[held_out.candidates]
    members = {node: np.flatnonzero((grounded == node).any(axis=1)) for node in np.unique(held_by[held_by != NO_NODE])}

    def by_interest(some: NDArray[np.int64], *, in_turn: bool) -> NDArray[np.float32]:
        scores = np.full((len(some), len(items)), -np.inf, np.float32)
        for row, user in enumerate(np.searchsorted(targets.users, some)):
            for place, node in enumerate(held_by[user]):
                if node != NO_NODE:
                    inside = members[node]
                    found = items[inside] @ vectors[user, 1 + place]
                    if in_turn:
                        found = -np.argsort(np.argsort(-found)) - place / np.float32(len(held_by[user]))
                    scores[row, inside] = np.maximum(scores[row, inside], found)
        return scores

    ways: tuple[Score, ...] = (
        lambda some: vectors[np.searchsorted(targets.users, some), 0] @ items.T,
        partial(by_interest, in_turn=False),
        partial(by_interest, in_turn=True),
    )
    found: dict[tuple[int, int], NDArray[np.float64]] = {}
    for part, score in enumerate(ways):
        ranked = held_out.top_k(score, targets.users, max(_DEPTHS), novel=True)
        found |= {(part, depth): targets.recall(ranked, depth) for depth in _DEPTHS}
    return found
