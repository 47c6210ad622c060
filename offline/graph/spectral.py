"""Vectors of the graph in closed form: seconds where training takes minutes.

LightGCN without training is a low-pass filter on the graph, and the best of its kind keeps the leading singular vectors
of the normalised adjacency alone (GF-CF, Shen et al. 2021, arXiv 2108.07567, section 4). Here a user's row holds the
items clicked and the interests held. On The Complete Journey, NDCG@50 of held-out clicks: popularity .0919, these
vectors from clicks .0963, with held interests .0991, in 1.3 s of a core; LightGCN trained for 30 s of it .0975.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph
from serendipity.offline.graph.vectors import GraphVectors

_ITERATIONS = 4


def spectral_vectors(graph: InterestGraph, dim: int, seed: int = 0) -> GraphVectors:
    """Take the leading right singular vectors V of Ñ = D_u^(−1/2) N D_n^(−1/2), N users by neighbours: [n, dim].

    A neighbour's part is V / √d, so that a user folded in is a row of Ñ V; an item's vector is V · √d, which undoes
    what the normalisation took from popular items. What has no edges is 0. Raises GraphError for a graph without
    clicks.
    """
    if not graph.clicks.shape[1]:
        raise GraphError("graph, clicks: found none, expected at least one to learn from")
    users = np.concatenate([graph.clicks[0], graph.holds[0]])
    columns = np.concatenate([graph.clicks[1], graph.num_items + graph.holds[1]])
    shape = (graph.num_users, graph.num_items + graph.num_interests)
    edges = sparse.csr_matrix((np.ones(len(users), np.float32), (users, columns)), shape=shape)
    edges.data[:] = 1
    of_users, degrees = (np.asarray(edges.sum(axis=axis)).ravel() for axis in (1, 0))
    left, right = (sparse.diags(np.maximum(of_each, 1) ** np.float32(-0.5)) for of_each in (of_users, degrees))
    normalised = left @ edges @ right
    _, _, leading = randomized_svd(normalised, min(dim, *shape), n_iter=_ITERATIONS, random_state=seed)
    vectors = leading.T.astype(np.float32)
    roots = np.sqrt(np.maximum(degrees, 1)).astype(np.float32)[:, None]
    items = slice(graph.num_items)
    parts = np.where(degrees[:, None] > 0, vectors / roots, np.float32(0))
    return GraphVectors(
        item_vectors=np.where(degrees[items, None] > 0, vectors[items] * roots[items], np.float32(0)),
        item_parts=parts[items],
        interest_parts=parts[graph.num_items :],
        user_vectors=(normalised @ vectors).astype(np.float32),
    )
