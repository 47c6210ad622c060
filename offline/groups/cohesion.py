"""How alike users of one group are, and how alike those of two: the cosine matrix of arXiv 2508.00450, figure 3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_GROUPS = 10
"""Groups drawn for the matrix."""

SUBSET_SIZE = 30
"""Users of each of a group's two subsets at most."""

_FEWEST_USERS = 4
"""Users a group needs to be drawn: two in each subset."""


@dataclass(frozen=True)
class Cohesion:
    """Cosines between mean interests of two disjoint subsets of users of every drawn group.

    group_ids: [g], ascending. matrix: [g, g], row i, column j: the first subset of group i against the second of j.
    intra, inter: mean of the diagonal, and of the rest; NaN without groups, or with one. share: of the rows whose
    largest entry is their own group's.
    """

    group_ids: tuple[int, ...]
    matrix: tuple[tuple[float, ...], ...]
    intra: float
    inter: float
    share: float


def cohesion(interests: NDArray[np.float32], group_ids: NDArray[np.int32], seed: int) -> Cohesion:
    """Draw groups and subsets of users, and compare them. interests: [U, d]; group_ids: [U], 0 is left out."""
    random = np.random.default_rng(seed)
    ids, users = np.unique(group_ids[group_ids > 0], return_counts=True)
    enough = ids[users >= _FEWEST_USERS]
    drawn = np.sort(random.permutation(enough)[:NUM_GROUPS])
    first, second = [], []
    for group in drawn:
        members = random.permutation(np.flatnonzero(group_ids == group))
        size = min(SUBSET_SIZE, len(members) // 2)
        first.append(_direction(interests[members[:size]]))
        second.append(_direction(interests[members[size : 2 * size]]))
    if not first:
        return Cohesion((), (), float("nan"), float("nan"), float("nan"))
    matrix = np.stack(first) @ np.stack(second).T
    own = np.eye(len(drawn), dtype=np.bool_)
    return Cohesion(
        group_ids=tuple(drawn.tolist()),
        matrix=tuple(tuple(row) for row in matrix.tolist()),
        intra=float(matrix[own].mean()),
        inter=float(matrix[~own].mean()) if len(drawn) > 1 else float("nan"),
        share=float((matrix.argmax(1) == np.arange(len(drawn))).mean()),
    )


def _direction(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    mean = vectors.mean(0, dtype=np.float64)
    direction: NDArray[np.float64] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return direction
