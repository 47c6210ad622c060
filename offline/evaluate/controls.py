"""Simple methods that any host could have instead of the channel: what it is worth is judged against them.

Every control scores users × candidates of a `HeldOut` from the clicks before its cut alone; which sizes and exponents
it is used with is chosen on validation (serendipity.offline.evaluate.control_choice).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from serendipity.offline.evaluate.held_out import HeldOut, Score

_FUSION_RANK = 60.0
_FUSION_DEPTH = 1_000
_EASE_LIMIT = 20_000
"""Most users, or items where there are fewer of them, of EASE's dense matrix."""
_COLUMNS = 4_096


def popularity(held_out: HeldOut, counts: NDArray[np.float32]) -> Score:
    """Rank by a count of every item: [n], e.g. its users in the last 28 days."""
    row = counts[held_out.candidates]
    return lambda some: np.broadcast_to(row, (len(some), len(row)))


def als(held_out: HeldOut, factors: int, alpha: float, seed: int) -> Score:
    """Implicit-feedback alternating least squares (Hu et al. 2008) on the binary clicks; alpha: weight of a click."""
    # implicit runs its own threads, and warns where BLAS would run more inside each.
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(factors=factors, alpha=alpha, random_state=seed, num_threads=0)
        model.fit(held_out.seen, show_progress=False)
    users: NDArray[np.float32] = model.user_factors
    items: NDArray[np.float32] = model.item_factors[held_out.candidates].T
    return lambda some: users[some] @ items


def ease(held_out: HeldOut, ridge: float) -> Score:
    """Item-to-item regression in closed form (Steck, "Embarrassingly Shallow Autoencoders", WWW 2019, eq. 8).

    With P = (XᵀX + λI)⁻¹ the weights are −P_ij / P_jj off the diagonal, so that an item the user has not clicked
    scores −(XP)_uj / P_jj. Where users are fewer than items the same comes of the smaller matrix K = XXᵀ:
    XP = (K + λI)⁻¹X and P_jj = (1 − x_jᵀ(K + λI)⁻¹x_j) / λ. Of more than 20,000 of both, the items with most users are
    scored and the others get 0. Scores of items that the user has clicked have no meaning.
    """
    clicks = held_out.seen[:, held_out.candidates].astype(np.float64).tocsc()
    num_users, num_items = clicks.shape
    if min(num_users, num_items) > _EASE_LIMIT:
        kept = np.sort(np.argsort(-np.diff(clicks.indptr), kind="stable")[:_EASE_LIMIT])
        score = _ease_by_items(clicks[:, kept].tocsr(), ridge)

        def spread(some: NDArray[np.int64]) -> NDArray[np.float32]:
            scores = np.zeros((len(some), num_items), np.float32)
            scores[:, kept] = score(some)
            return scores

        return spread
    if num_items <= num_users:
        return _ease_by_items(clicks.tocsr(), ridge)
    return _ease_by_users(clicks, ridge)


def _ease_by_items(clicks: sparse.csr_matrix, ridge: float) -> Score:
    inverse = np.linalg.inv((clicks.T @ clicks).toarray() + ridge * np.eye(clicks.shape[1]))
    weights = (-inverse / np.diag(inverse)).astype(np.float32)
    return lambda some: np.asarray(clicks[some] @ weights, np.float32)


def _ease_by_users(clicks: sparse.csc_matrix, ridge: float) -> Score:
    inverse = np.linalg.inv((clicks @ clicks.T).toarray() + ridge * np.eye(clicks.shape[0])).astype(np.float32)
    diagonal = np.empty(clicks.shape[1], np.float32)
    for start in range(0, clicks.shape[1], _COLUMNS):
        some = clicks[:, start : start + _COLUMNS].astype(np.float32)
        diagonal[start : start + _COLUMNS] = some.multiply((some.T @ inverse).T).sum(axis=0)
    diagonal = (1 - diagonal) / np.float32(ridge)
    transposed = clicks.T.astype(np.float32).tocsr()
    return lambda some: np.asarray(-(transposed @ inverse[some].T).T / diagonal, np.float32)


def with_trend(held_out: HeldOut, score: Score, trend: NDArray[np.float32], exponent: float) -> Score:
    """Multiply scores (negative ones count as 0) by a power of every item's trend [n]."""
    powers = trend[held_out.candidates] ** np.float32(exponent)
    return lambda some: np.maximum(score(some), 0) * powers


def fused(scores: Sequence[Score]) -> Score:
    """Sum reciprocal ranks, Σ 1 / (60 + rank) over the first 1,000 of each (Cormack et al., SIGIR 2009)."""

    def fuse(some: NDArray[np.int64]) -> NDArray[np.float32]:
        total: NDArray[np.float32] | None = None
        for score in scores:
            values = score(some)
            total = np.zeros(values.shape, np.float32) if total is None else total
            ranked = torch.from_numpy(np.array(values)).topk(min(_FUSION_DEPTH, values.shape[1]), dim=1).indices.numpy()
            total[np.arange(len(some))[:, None], ranked] += 1 / (_FUSION_RANK + 1 + np.arange(ranked.shape[1]))
        assert total is not None
        return total

    return fuse
