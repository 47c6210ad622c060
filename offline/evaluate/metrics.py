"""Ranking metrics of top-k lists against held-out targets, per user."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.held_out import Targets


def hits(top: NDArray[np.int64], targets: Targets) -> NDArray[np.bool_]:
    """Mark the places of top-k lists that hold a target.

    top: [n, k] item rows in the order of targets.users, −1 for none. Returns [n, k].
    """
    if len(top) != len(targets):
        raise ValueError(f"hits: found {len(top)} lists, expected one for each of {len(targets)} users with targets")
    span = int(max(top.max(initial=-1), targets.rows.max(initial=-1))) + 1
    owner = np.repeat(np.arange(len(targets)), targets.counts)
    keys = np.arange(len(top))[:, None] * span + top
    found: NDArray[np.bool_] = np.isin(keys, owner * span + targets.rows) & (top >= 0)
    return found


def recall_at(hit: NDArray[np.bool_], targets: Targets, k: int) -> NDArray[np.float64]:
    """Recall@k of each user: targets among the first k / all targets. Returns [n]."""
    recall: NDArray[np.float64] = hit[:, :k].sum(axis=1) / targets.counts
    return recall


def coverage_at(top: NDArray[np.int64], num_candidates: int, k: int) -> float:
    """Coverage@k: share of the candidates that occur in some user's first k."""
    shown = np.unique(top[:, :k])
    return float((shown >= 0).sum() / max(num_candidates, 1))
