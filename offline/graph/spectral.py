"""Vectors of the graph in closed form: seconds where training takes minutes.

LightGCN without training is a low-pass filter on the graph, and the best of its kind keeps the leading singular vectors
of the normalised adjacency alone (GF-CF, Shen et al. 2021, arXiv 2108.07567, section 4). Here a user's row holds the
items clicked, the interests held, and what is known of the items clicked, and the filter falls off gently.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph
from serendipity.offline.graph.vectors import GraphVectors

_ITERATIONS = 2


def spectral_vectors(graph: InterestGraph, dim: int, power: float = 0.5, seed: int = 0) -> GraphVectors:
    """Take the leading right singular vectors V of Ñ = D_u^(−p) [R, H, R K̄] D_n^(−p).

    R: users by items clicked; H: by interests held; K̄: items by entities, the rows of which sum to 1; D_u: how many
    items and interests a user has; p: the power, ½ in GF-CF. A neighbour's part is V / d^p, an item's with the share of
    its entities' parts; an item's vector is V · σ² / (σ² + σ_d²) · d^p: the ridge of a regression (as in EASE) that
    halves the last of the d directions kept, and what the normalisation took from popular items given back. What has no
    edges is 0. Raises GraphError for a graph without clicks.
    """
    if not graph.clicks.shape[1]:
        raise GraphError("graph, clicks: found none, expected at least one to learn from")
    clicks = _ones(graph.clicks, (graph.num_users, graph.num_items))
    holds = _ones(graph.holds, (graph.num_users, graph.num_interests))
    known = _of_items(graph)
    rows = sparse.hstack([clicks, holds, clicks @ known]).tocsr()
    neighbours = np.maximum(np.asarray(clicks.sum(axis=1) + holds.sum(axis=1)).ravel(), 1)
    degrees = np.asarray(rows.sum(axis=0)).ravel()
    # A column of less than one click is as good as none.
    left, right = (sparse.diags(np.maximum(each, 1) ** np.float32(-power)) for each in (neighbours, degrees))
    width = min(dim, *rows.shape)
    _, singular, leading = randomized_svd(left @ rows @ right, width, n_iter=_ITERATIONS, random_state=seed)
    vectors = np.where(degrees[:, None] > 0, leading.T, 0).astype(np.float32)
    scale = (np.maximum(degrees, 1) ** power).astype(np.float32)[:, None]
    shares = np.square(singular) / np.maximum(np.square(singular) + singular[-1] ** 2, np.finfo(np.float32).tiny)
    parts = vectors / scale
    of_interests = slice(graph.num_items, graph.num_items + graph.num_interests)
    item_parts, interest_parts = parts[: graph.num_items] + known @ parts[of_interests.stop :], parts[of_interests]
    folded = (clicks @ item_parts + holds @ interest_parts) / np.sqrt(neighbours)[:, None]
    return GraphVectors(
        item_vectors=(vectors * shares.astype(np.float32) * scale)[: graph.num_items],
        item_parts=item_parts,
        interest_parts=interest_parts,
        user_vectors=folded.astype(np.float32),
    )


def _ones(edges: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_matrix:
    """Make a matrix of 0 and 1 from [2, E] row and column, in which a pair may come twice."""
    ones = sparse.csr_matrix((np.ones(edges.shape[1], np.float32), (edges[0], edges[1])), shape=shape)
    ones.data[:] = 1
    return ones


def _of_items(graph: InterestGraph) -> sparse.csr_matrix:
    """Make K̄, [items, entities], of what items lead to; between entities nothing is looked at."""
    heads, _, tails = graph.knowledge
    inside = (heads < graph.num_items) & (tails >= graph.num_items)
    pairs = np.stack([heads[inside], tails[inside] - graph.num_items])
    known = _ones(pairs, (graph.num_items, graph.num_entities))
    sums = np.maximum(np.asarray(known.sum(axis=1)).ravel(), 1)
    return sparse.csr_matrix(sparse.diags((1 / sums).astype(np.float32)) @ known)
