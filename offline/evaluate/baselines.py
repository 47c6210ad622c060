"""Baselines every tower is measured against: popularity, and `implicit`'s ALS and BPR.

All are fitted on the binary user × item matrix of the training clicks (Hu et al. 2008; Rendle et al. 2009).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from serendipity.offline.evaluate.held_out import HeldOut, Score

FACTORS = 64


def popularity(held_out: HeldOut, seed: int = 0) -> Score:  # noqa: ARG001 - one signature for all baselines
    """Rank by the number of distinct users who clicked the item before the cut."""
    users = np.asarray(held_out.seen.sum(axis=0)).ravel()[held_out.candidates].astype(np.float32)
    return lambda some: np.broadcast_to(users, (len(some), len(users)))


def als(held_out: HeldOut, seed: int = 0) -> Score:
    """Implicit-feedback alternating least squares, 64 factors, the library's defaults."""
    return _factorised(lambda: AlternatingLeastSquares(factors=FACTORS, random_state=seed, num_threads=0), held_out)


def bpr(held_out: HeldOut, seed: int = 0) -> Score:
    """Bayesian personalised ranking, 64 factors, the library's defaults."""
    # One thread: several write to the factors at once, and the result would depend on their timing.
    return _factorised(lambda: BayesianPersonalizedRanking(factors=FACTORS, random_state=seed, num_threads=1), held_out)


def _factorised(make: Callable[[], AlternatingLeastSquares | BayesianPersonalizedRanking], held_out: HeldOut) -> Score:
    # implicit runs its own threads, and warns where BLAS would run more inside each.
    with threadpool_limits(limits=1, user_api="blas"):
        model = make()
        model.fit(held_out.seen, show_progress=False)
    users: NDArray[np.float32] = model.user_factors
    items: NDArray[np.float32] = model.item_factors[held_out.candidates]
    return lambda some: users[some] @ items.T


BASELINES: dict[str, Callable[[HeldOut, int], Score]] = {"popularity": popularity, "ALS": als, "BPR": bpr}
"""Name in reports → fit(held_out, seed)."""

SEEDLESS = frozenset({"popularity"})
"""Baselines that no seed changes."""
