"""Item factors as of a moment: "historical interaction embeddings" both towers start from.

Truncated singular value decompositions of the degree-normalised binary user × item matrix of the clicks before the
moment: X_ui = 1 / (n_u^a n_i^b), X ≈ P Σ Qᵀ. A user's factor is a sum over the history,
(X Q)_u = Σ_j q_j n_j^−b / n_u^a, so a tower can compute it for any history, and (X Q)_u · q_i n_i^b is a recommender
already (PureSVD, Cremonesi et al. 2010, for a = b = 0). Factors of later clicks would tell the training rows their
labels, so every cut has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import Histories
from serendipity.offline.towers.config import FactorBlock, FactorsConfig

_OVERSAMPLES = 10
_ITERATIONS = 6
_WARM_ITERATIONS = 2
"""Iterations from the basis of the cut before."""

_NO_VARIANCE = 1e-6
_MIN_USERS = 3


@dataclass(frozen=True)
class ItemFactors:
    """Factors of n items as of `time`.

    clicked: [n + 1, f] float32 by row + 1, what a click on the item adds to a user's factor: q_j n_j^−b, scaled so that
    scores vary by 1 over a user's items; zero for row 0 and for items without a click before. own: [n, f] float32, what
    the user's factor is multiplied with: q_i n_i^b.
    """

    time: int
    clicked: NDArray[np.float32]
    own: NDArray[np.float32]


def item_factors(
    histories: Histories, num_items: int, times: Sequence[int], config: FactorsConfig, seed: int
) -> Iterator[ItemFactors]:
    """Factorise as of each moment; each turned (orthogonal Procrustes) to lie as the one before.

    Raises LogsError when there is no click before a moment.
    """
    users, rows = histories.users.astype(np.int64), histories.items - 1
    rng = np.random.default_rng(seed)
    bases = [rng.standard_normal((num_items, block.dim + _OVERSAMPLES)) for block in config.blocks]
    previous: list[NDArray[np.float64] | None] = [None] * len(config.blocks)
    for time in times:
        before = (histories.times < time) & (rows >= 0)
        if not before.any():
            raise LogsError(f"towers: found no clicks before {time}, expected at least one")
        pairs = np.unique(users[before] * num_items + rows[before])
        clicks = sparse.csr_matrix(
            (np.ones(len(pairs)), (pairs // num_items, pairs % num_items)), shape=(len(histories), num_items)
        )
        degrees = np.maximum(np.bincount(pairs % num_items, minlength=num_items), 1).astype(np.float64)
        clicked, own = [], []
        for number, block in enumerate(config.blocks):
            weighted = _weigh(clicks, degrees, block)
            last = previous[number]
            iterations = _ITERATIONS if last is None else _WARM_ITERATIONS
            bases[number] = _subspace(weighted, bases[number], iterations)
            found = _singular_vectors(weighted, bases[number], block.dim)
            if last is not None:
                left, _, right = np.linalg.svd(found.T @ last)
                found = found @ (left @ right)
            previous[number] = found
            own_part = found * (degrees**block.item_power)[:, None]
            spread = _spread(weighted @ found, own_part[degrees >= _MIN_USERS])
            clicked.append(found * (degrees**-block.item_power)[:, None] / spread)
            own.append(own_part)
        table = np.concatenate([np.zeros((1, config.dim)), np.concatenate(clicked, axis=1)])
        yield ItemFactors(time, table.astype(np.float32), np.concatenate(own, axis=1).astype(np.float32))


def _weigh(clicks: sparse.csr_matrix, degrees: NDArray[np.float64], block: FactorBlock) -> sparse.csr_matrix:
    user_degrees = np.maximum(np.asarray(clicks.sum(axis=1)).ravel(), 1.0)
    users, items = user_degrees**-block.user_power, degrees**-block.item_power
    return (sparse.diags(users) @ clicks @ sparse.diags(items)).tocsr()


def _subspace(matrix: sparse.csr_matrix, basis: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Turn a basis, [n, k], towards the leading right singular vectors (subspace iteration, Halko et al. 2011)."""
    for _ in range(iterations):
        basis = matrix.T @ np.linalg.qr(matrix @ basis)[0]
    found: NDArray[np.float64] = np.linalg.qr(basis)[0]
    return found


def _singular_vectors(matrix: sparse.csr_matrix, basis: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """Right singular vectors within an orthonormal basis, [n, dim]; columns past the rank are zero."""
    _, singular, right = np.linalg.svd(matrix @ basis, full_matrices=False)
    # Directions without variance are noise of the solver.
    kept = min(dim, int((singular > _NO_VARIANCE * singular[0]).sum()))
    found = np.zeros((matrix.shape[1], dim))
    found[:, :kept] = basis @ right[:kept].T
    return found


def _spread(users: NDArray[np.float64], items: NDArray[np.float64]) -> float:
    """Standard deviation of a user's scores over the items, averaged over the users with clicks."""
    users = users[np.abs(users).sum(axis=1) > 0]
    if not len(users) or len(items) < 2:
        return 1.0
    centred = items - items.mean(axis=0)
    covariance = centred.T @ centred / len(items)
    deviations = np.sqrt(np.maximum(np.einsum("uf,fg,ug->u", users, covariance, users, optimize=True), 0.0))
    return float(deviations.mean()) or 1.0
