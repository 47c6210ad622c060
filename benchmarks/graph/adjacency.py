"""A graph as matrices: which edges a view holds, and how they weigh."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from serendipity.offline.graph.interest_graph import InterestGraph


class View(Enum):
    """Which edges a look at the graph holds; every view has the clicks."""

    COLLABORATIVE = "collaborative"
    INTEREST = "interest-augmented"
    KNOWLEDGE = "knowledge-augmented"
    WHOLE = "whole"


def num_nodes(graph: InterestGraph) -> int:
    """Count nodes of all kinds."""
    return graph.first_interest + graph.num_interests


def num_relations(graph: InterestGraph) -> int:
    """Count relations of the knowledge: one more than the highest."""
    return int(graph.knowledge[1].max()) + 1 if graph.knowledge.shape[1] else 0


def edges(graph: InterestGraph, view: View) -> NDArray[np.int64]:
    """Give the view's undirected edges: [2, E] nodes, the lower first, each once, no node with itself."""
    parts = [np.stack([graph.clicks[0], graph.num_users + graph.clicks[1]])]
    if view in (View.INTEREST, View.WHOLE):
        parts.append(np.stack([graph.holds[0], graph.first_interest + graph.holds[1]]))
    if view in (View.KNOWLEDGE, View.WHOLE):
        parts.append(graph.num_users + graph.knowledge[[0, 2]])
    pairs = np.sort(np.concatenate(parts, axis=1), axis=0)
    pairs = pairs[:, pairs[0] != pairs[1]]
    number = num_nodes(graph)
    keys = np.unique(pairs[0] * number + pairs[1])
    return np.stack([keys // number, keys % number])


def adjacency(graph: InterestGraph, view: View, knowledge_weight: float = 1.0) -> scipy.sparse.csr_matrix:
    """Make the normalised adjacency Â = D^(−1/2) A D^(−1/2) of a view: [nodes, nodes], float32, no self-loops.

    knowledge_weight: of an edge of the knowledge in A and D; clicks and held interests weigh 1.
    """
    low, high = edges(graph, view)
    scale = 1.0 / np.sqrt(np.maximum(degrees(graph, view, knowledge_weight), np.finfo(np.float64).tiny))
    values = (_weights(graph, low, high, knowledge_weight) * scale[low] * scale[high]).astype(np.float32)
    places = (np.concatenate([low, high]), np.concatenate([high, low]))
    return scipy.sparse.csr_matrix((np.tile(values, 2), places), shape=(num_nodes(graph), num_nodes(graph)))


def degrees(graph: InterestGraph, view: View, knowledge_weight: float = 1.0) -> NDArray[np.float64]:
    """Sum the weights of every node's edges: [nodes]."""
    low, high = edges(graph, view)
    weights = np.tile(_weights(graph, low, high, knowledge_weight), 2)
    ends = np.concatenate([low, high])
    sums: NDArray[np.float64] = np.bincount(ends, weights=weights, minlength=num_nodes(graph)).astype(np.float64)
    return sums


def without_interests(graph: InterestGraph) -> InterestGraph:
    """Give the same graph without its interest edges."""
    return replace(graph, holds=np.empty((2, 0), np.int64))


def without_knowledge(graph: InterestGraph) -> InterestGraph:
    """Give the same graph without its knowledge."""
    return replace(graph, knowledge=np.empty((3, 0), np.int64))


def _weights(
    graph: InterestGraph, low: NDArray[np.int64], high: NDArray[np.int64], knowledge_weight: float
) -> NDArray[np.float64]:
    known = (low >= graph.num_users) & (high < graph.first_interest)
    return np.where(known, knowledge_weight, 1.0)
