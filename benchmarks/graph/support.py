"""How many interest edges something in the user's history supports: an open question of the paper's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from serendipity.offline.graph.interest_graph import InterestGraph


def lifted_shares(graph: InterestGraph, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tell which share of the user's items has a lift above 1 for the interest: [E], of edges [2, E].

    Lift of item j for user u and interest i: the share of the other holders of i who clicked j, over the share of all
    other users who did. Without another holder nothing is lifted. Users without clicks count as 0.
    """
    ones = np.ones(graph.clicks.shape[1], np.float32)
    clicked = sparse.csr_matrix((ones, (graph.clicks[0], graph.clicks[1])), shape=(graph.num_users, graph.num_items))
    clicked.data[:] = 1
    everybody = np.asarray(clicked.sum(axis=0)).ravel()
    shares = np.zeros(edges.shape[1])
    for interest in np.unique(edges[1]):
        holders = np.unique(graph.holds[0][graph.holds[1] == interest])
        holding = np.asarray(clicked[holders].sum(axis=0)).ravel()
        for place in np.flatnonzero(edges[1] == interest):
            user = edges[0, place]
            items = clicked.indices[clicked.indptr[user] : clicked.indptr[user + 1]]
            own = int(user in holders)
            if len(items) and len(holders) > own:
                among = (holding[items] - own) / (len(holders) - own)
                shares[place] = (among > (everybody[items] - 1) / max(graph.num_users - 1, 1)).mean()
    return shares


def support_section(graph: InterestGraph, rng: np.random.Generator) -> list[str]:
    """Write what supports the interest edges of a graph, and random ones in their place."""
    edges = np.unique(graph.holds, axis=1)
    drawn = np.unique(np.stack([edges[0], rng.permutation(edges[1])]), axis=1)
    width = graph.num_interests
    drawn = drawn[:, ~np.isin(drawn[0] * width + drawn[1], edges[0] * width + edges[1])]
    lines = ["| edges | number | supported by nothing | the user's items with a lift above 1 |", "|---|---:|---:|---:|"]
    for name, some in (("inferred", edges), ("random", drawn)):
        shares = lifted_shares(graph, some)
        if len(shares):
            lines.append(f"| {name} | {len(shares):,} | {(shares == 0).mean():.2%} | {shares.mean():.1%} |")
    return [
        "## What supports the interests",
        "",
        *lines,
        "",
        "An edge of user u and interest i is supported when at least one item that u clicked in train has a lift above "
        "1: the other holders of i clicked it more often than all other users did. One item of many is a weak "
        "condition, so the share of all the user's items is told as well, averaged over edges. Random: the inferred "
        "edges with their interests permuted, so that users hold as many and interests are as popular; those that "
        "are inferred edges as well are left out.",
        "",
    ]
