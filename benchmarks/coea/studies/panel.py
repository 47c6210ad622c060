"""Whom the studies ask for: few enough that they can be asked after every round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.coea.protocol import CategorySplit, Episodes

VALIDATION_USERS = 1000
"""Users of the validation episodes that are asked for, drawn once for all."""

_SEED = 4


def reduced(split: CategorySplit, validation_users: int = VALIDATION_USERS) -> CategorySplit:
    """Keep the users with a target outside C_s: all at the test, at most so many, drawn uniformly, at validation.

    Quality is defined for no others; novelty is of the same users, so that both are read off the same lists.
    """
    rows = np.flatnonzero(split.validation.reachable.any(axis=1))
    drawn = np.random.default_rng(_SEED).permutation(rows)[:validation_users]
    return replace(
        split,
        validation=_of(split.validation, np.sort(drawn)),
        test=_of(split.test, np.flatnonzero(split.test.reachable.any(axis=1))),
    )


def _of(episodes: Episodes, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Episodes:
    return Episodes(
        users=episodes.users[rows],
        histories=episodes.histories,
        targets=episodes.targets[rows],
        recent=tuple(episodes.recent[row] for row in rows.tolist()),
        clicked=episodes.clicked[rows],
        tied=episodes.tied[rows],
    )
