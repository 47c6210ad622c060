"""What fitting groups came to, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.groups.fitting import Fitted
from serendipity.offline.groups.next_item import NextItemReport


@dataclass(frozen=True)
class LayerUse:
    """How the users' CSIDs use one codebook. used: codes that occur; perplexity: exp of the entropy of their use."""

    used: int
    perplexity: float


@dataclass(frozen=True)
class GroupReport:
    """Numbers about a group model and the users it was fitted to.

    users, warm_users: all, and those with a group of their own. layers: use of the codebooks. csids: distinct ones;
    collisions: share of warm users who share theirs with another. reconstruction_error: share of the interests'
    variance that CSIDs do not tell. group_sizes: users of groups 1 … G.
    """

    users: int
    warm_users: int
    next_item: NextItemReport
    layers: tuple[LayerUse, ...]
    csids: int
    collisions: float
    reconstruction_error: float
    group_sizes: tuple[int, ...]

    @classmethod
    def of(cls, fitted: Fitted, num_users: int, codebook_size: int) -> GroupReport:
        """Sum up what was fitted."""
        codes, group_ids = fitted.codes.numpy(), fitted.group_ids.numpy()
        _, shared_by = np.unique(codes, axis=0, return_counts=True)
        return cls(
            users=num_users,
            warm_users=len(codes),
            next_item=fitted.next_item,
            layers=tuple(layer_use(layer, codebook_size) for layer in codes.T),
            csids=len(shared_by),
            collisions=float(shared_by[shared_by > 1].sum() / len(codes)),
            reconstruction_error=fitted.encoder.rq_vae.reconstruction_error(fitted.interests),
            group_sizes=tuple(np.bincount(group_ids, minlength=fitted.encoder.num_groups + 1)[1:].tolist()),
        )


def layer_use(codes: NDArray[np.int64], codebook_size: int) -> LayerUse:
    """Tell how codes, [n], use a codebook."""
    shares = np.bincount(codes, minlength=codebook_size) / max(1, len(codes))
    used = shares[shares > 0]
    return LayerUse(len(used), float(np.exp(-(used * np.log(used)).sum())))
