"""The item rows that a user's best candidates are among: few enough to score each by every vector of the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.recall.hydrate import Hydrated
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.novelty import is_novel


@dataclass(frozen=True)
class UserVectors:
    """What the user tower gave for one user, or what stood in for it.

    rows: [1 + k, d] float32: the user alone (U2I), then the user with each interest (I2I);
    fallback: True where the stored user vector stands in for all of them.
    """

    rows: NDArray[np.float32]
    fallback: bool

    @classmethod
    def stored(cls, vector: NDArray[np.float32] | None, num_interests: int) -> UserVectors | None:
        """Let a stored vector, [d], stand in for all; None where none is stored."""
        if vector is None:
            return None
        return cls(np.broadcast_to(vector, (1 + num_interests, len(vector))), fallback=True)

    @classmethod
    def absent(cls, dim: int, num_interests: int) -> UserVectors:
        """Lay zeros out where there are no vectors at all; no source that needs them is asked then."""
        return cls(np.zeros((1 + num_interests, dim), np.float32), fallback=True)


@dataclass(frozen=True)
class Pool:
    """Item rows and how near each is to the user; m of them, of k interests.

    rows: [m] int64, ascending; scores: [m, 1 + k] float32, inner products with UserVectors.rows; grounded: [m, k] bool,
    interests that each row is grounded in; categories: [m] int32 numbers; novel: [m] bool; proposed_by: source → [m]
    bool; failure: what was wrong with the scores, in words.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    grounded: NDArray[np.bool_]
    categories: NDArray[np.int32]
    novel: NDArray[np.bool_]
    proposed_by: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    failure: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def empty(cls) -> Pool:
        """No rows."""
        rows, categories, none = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.bool_)
        return cls(rows, np.empty((0, 1), np.float32), none[:, None], categories, none)

    def take(self, where: NDArray[np.bool_]) -> Pool:
        """Keep the rows a mask marks."""
        if where.all():
            return self
        return Pool(
            self.rows[where],
            self.scores[where],
            self.grounded[where],
            self.categories[where],
            self.novel[where],
            {source: proposed[where] for source, proposed in self.proposed_by.items()},
        )


def gather(proposed: Mapping[int, NDArray[np.int64]], vectors: UserVectors, user: Hydrated, snapshot: Snapshot) -> Pool:
    """Score what the sources propose by every vector of the user. Scores that are not finite never get further.

    Rows without one for the user alone go; one for an interest is −∞, and leads nowhere. proposed: source → item rows,
    in any order.
    """
    rows = np.unique(np.concatenate(list(proposed.values()))) if proposed else np.empty(0, np.int64)
    marks = {source: np.zeros(len(rows), np.bool_) for source in proposed}
    for source, of_source in proposed.items():
        marks[source][np.searchsorted(rows, of_source)] = True
    scores = snapshot.vectors.vectors[rows] @ vectors.rows.T
    categories = snapshot.categories_of(rows + 1)
    grounded = user.interests.grounded.contain(rows)
    pool = Pool(rows, scores, grounded, categories, is_novel(categories, user.clicked), marks)
    finite = np.isfinite(scores)
    if finite.all():
        return pool
    scores[~finite] = -np.inf
    broken = int((~finite).any(axis=1).sum())
    return replace(pool.take(finite[:, 0]), failure=f"search: scores of {broken} of {len(rows)} items are not finite")
