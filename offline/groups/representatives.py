"""Representative users of groups: those nearest to a group's centroid (arXiv 2508.00450, eq. 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.groups.profile_llm import Member
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories


def nearest_users(
    latents: NDArray[np.float32], group_ids: NDArray[np.int64], centroids: NDArray[np.float32], most: int
) -> list[NDArray[np.int64]]:
    """Find each group's members nearest to its centroid, nearest first: by group 1 … G, rows of latents.

    latents: [W, e], of users before quantisation, so that users of one CSID differ; group_ids: [W], 1 … G.
    """
    distances = np.square(latents - centroids[group_ids - 1]).sum(1)
    nearest = []
    for group in range(1, len(centroids) + 1):
        members = np.flatnonzero(group_ids == group)
        nearest.append(members[np.argsort(distances[members], kind="stable")][:most])
    return nearest


def member(histories: Histories, user: int, catalogue: Catalogue, titles: int) -> Member:
    """Sum a user's history up: clicks by category, and the latest titles."""
    clicks = slice(histories.offsets[user], histories.offsets[user + 1])
    counts = np.bincount(histories.categories[clicks])
    counts[:1] = 0  # NO_CATEGORY
    chosen = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    latest = dict.fromkeys(item for item in histories.items[clicks][::-1].tolist() if item)
    return Member(
        categories=[(catalogue.categories[number - 1], int(counts[number])) for number in chosen],
        titles=[catalogue.titles[item - 1] for item in list(latest)[:titles]],
    )
