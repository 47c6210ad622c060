"""The measures of the comparison, each defined once; all take top-K lists and give one value per user.

The printed formulas of arXiv 2508.00450, appendix A.4, are lost, and what Table 2 says constrains them: so each is
defined here exactly. A list may be shorter than K; what is missing
hits nothing and is neither novel nor of the long tail.

Symbols: L_u(K) the first K categories of user u's list, T_u the categories clicked next outside C_s, P_u the categories
of the history, C all categories, B the long tail (`CategorySplit.long_tail`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit, Episodes

LIST_LENGTH = 10
"""Categories of a list that are kept and measured: the largest K."""

NO_COLUMN = -1
"""Fills lists past their end."""


def ranked(scores: NDArray[np.float32], episodes: Episodes, length: int = LIST_LENGTH) -> NDArray[np.int64]:
    """Turn scores into lists over the candidates, best first: [n, length] columns, NO_COLUMN past a list's end.

    scores: [n, C], −inf for what is not on the list; equal ones come in the catalogue's order. Raises ValueError for
    another shape or for NaN.
    """
    if scores.shape != episodes.candidates.shape:
        raise ValueError(f"ranked: found scores of shape {scores.shape}, expected {episodes.candidates.shape}")
    if np.isnan(scores).any():
        raise ValueError("ranked: found NaN among the scores, expected numbers or −inf")
    allowed = np.where(episodes.candidates, scores, -np.inf)
    order = np.argsort(-allowed, axis=1, kind="stable")[:, :length].astype(np.int64)
    order[np.isneginf(np.take_along_axis(allowed, order, axis=1))] = NO_COLUMN
    return np.pad(order, ((0, 0), (0, length - order.shape[1])), constant_values=NO_COLUMN)


def category_hit(top: NDArray[np.int64], targets: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """C-H@K = mean over users with T_u ≠ ∅ of 1[L_u(K) ∩ T_u ≠ ∅]: a category the user turns to is among the first K.

    targets: [n, C] bool, T_u, or its part that is novel. Returns [n], NaN for users without a target.
    """
    return _of_users_with(targets, _among(top, targets, k).any(axis=1).astype(np.float64))


def category_ndcg(top: NDArray[np.int64], targets: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """C-N@K = mean over users with T_u ≠ ∅ of Σ_{j ≤ K} 1[L_u,j ∈ T_u] / log₂(j + 1), over that of the best list.

    The best list has min(|T_u|, K) hits in front. targets as in `category_hit`. Returns [n], NaN without a target.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    hit = _among(top, targets, k)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(targets.sum(axis=1), k)]
    return _of_users_with(targets, hit @ discounts[: hit.shape[1]] / np.maximum(ideal, 1e-12))


def proportion(top: NDArray[np.int64], chosen: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Give |L_u(K) ∩ S_u| / |C|: [n]. chosen: [n, C] bool, S_u.

    NCP@K is its mean over users with S_u = C \\ P_u, CLTP@K with S_u = B. By |C| and not by K, as the caps of Table 2
    say (5/18, 10/594).
    """
    found: NDArray[np.float64] = _among(top, chosen, k).sum(axis=1) / chosen.shape[1]
    return found


def measures(
    top: NDArray[np.int64], episodes: Episodes, split: CategorySplit, k: int
) -> dict[str, NDArray[np.float64]]:
    """Measure lists by everything at one K: name, as in reports, → [n], one value per user, NaN where undefined."""
    tail = np.broadcast_to(split.long_tail, (len(top), len(split.long_tail)))
    return {
        f"C-H@{k}": category_hit(top, episodes.reachable, k),
        f"C-N@{k}": category_ndcg(top, episodes.reachable, k),
        f"novel C-H@{k}": category_hit(top, episodes.novel_targets, k),
        f"NCP@{k}": proportion(top, ~episodes.clicked, k),
        f"CLTP@{k}": proportion(top, tail, k),
    }


def hit_and_novelty(top: NDArray[np.int64], episodes: Episodes, hit: int, rank: int) -> tuple[float, float]:
    """Give C-H@hit and NCP@rank alone, means over users."""
    novelty = proportion(top, ~episodes.clicked, rank)
    return mean(category_hit(top, episodes.reachable, hit)), mean(novelty)


def mean(values: NDArray[np.float64]) -> float:
    """Average a measure over the users it is defined for; NaN where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _among(top: NDArray[np.int64], chosen: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    first = top[:, :k]
    found: NDArray[np.bool_] = np.take_along_axis(chosen, np.maximum(first, 0), axis=1) & (first != NO_COLUMN)
    return found


def _of_users_with(targets: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(targets.any(axis=1), values, np.nan)
