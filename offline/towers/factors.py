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
from sklearn.utils.extmath import randomized_svd

from serendipity.offline.logs.histories import Histories
from serendipity.offline.towers.config import FactorBlock, FactorsConfig

_POWER_ITERATIONS = 5
_SAMPLED_USERS = 512
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

    Raises ValueError when there is no click before a moment.
    """
    users, rows = histories.users.astype(np.int64), histories.items - 1
    previous: list[NDArray[np.float64] | None] = [None] * len(config.blocks)
    for time in times:
        before = (histories.times < time) & (rows >= 0)
        if not before.any():
            raise ValueError(f"item_factors: found no clicks before {time}, expected at least one")
        pairs = np.unique(users[before] * num_items + rows[before])
        clicks = sparse.csr_matrix(
            (np.ones(len(pairs)), (pairs // num_items, pairs % num_items)), shape=(len(histories), num_items)
        )
        clicked, own = [], []
        for number, block in enumerate(config.blocks):
            found, weighted = _decompose(clicks, block, seed)
            last = previous[number]
            if last is not None:
                left, _, right = np.linalg.svd(found.T @ last)
                found = found @ (left @ right)
            previous[number] = found
            degrees = np.maximum(np.asarray(clicks.sum(axis=0)).ravel(), 1.0)
            own_part = found * (degrees**block.item_power)[:, None]
            spread = _spread(weighted @ found, own_part[degrees >= _MIN_USERS])
            clicked.append(found * (degrees**-block.item_power)[:, None] / spread)
            own.append(own_part)
        table = np.concatenate([np.zeros((1, config.dim)), np.concatenate(clicked, axis=1)])
        yield ItemFactors(time, table.astype(np.float32), np.concatenate(own, axis=1).astype(np.float32))


def _decompose(
    clicks: sparse.csr_matrix, block: FactorBlock, seed: int
) -> tuple[NDArray[np.float64], sparse.csr_matrix]:
    """Right singular vectors, [n, block.dim], columns past the rank zero; and the weighted matrix."""
    user_degrees = np.maximum(np.asarray(clicks.sum(axis=1)).ravel(), 1.0)
    item_degrees = np.maximum(np.asarray(clicks.sum(axis=0)).ravel(), 1.0)
    weighted = sparse.diags(user_degrees**-block.user_power) @ clicks @ sparse.diags(item_degrees**-block.item_power)
    rank = min(block.dim, *clicks.shape)
    _, singular, right = randomized_svd(
        weighted, rank, n_iter=_POWER_ITERATIONS, random_state=np.random.RandomState(seed)
    )
    # Directions without variance are noise of the solver.
    kept = int((singular > 1e-6 * singular[0]).sum())
    found = np.zeros((clicks.shape[1], block.dim))
    found[:, :kept] = right[:kept].T
    return found, weighted.tocsr()


def _spread(users: NDArray[np.float64], items: NDArray[np.float64]) -> float:
    """Standard deviation of a user's scores over the items, averaged over some users with clicks."""
    users = users[np.flatnonzero(np.abs(users).sum(axis=1))]
    users = users[:: max(1, len(users) // _SAMPLED_USERS)]
    deviations = (users @ items.T).std(axis=1) if len(items) and len(users) else np.empty(0)
    return float(deviations.mean()) if len(deviations) and deviations.mean() > 0 else 1.0
