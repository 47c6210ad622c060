"""Histories as the network is fed them: the kept clicks of every user, ascending, and their profiles as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.features import FeatureAssembler
from serendipity.groups.sequence import Counted, LongSequenceRule, kept_clicks
from serendipity.offline.groups.config import SequenceConfig
from serendipity.offline.logs.histories import Histories

_REPEAT_SHARE = 0.05
"""Share of clicks on an item the same user clicked before, from which on items are counted, not categories."""


@dataclass(frozen=True)
class Stretches:
    """Stretches of kept clicks of B users. users: [B]; starts, lengths: [B], first kept click and how many.

    items: [B, N] int64, row + 1, oldest first, zeros behind; profiles: [B, P] int32.
    """

    users: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    items: NDArray[np.int64]
    profiles: NDArray[np.int32]


@dataclass(frozen=True)
class KeptHistories:
    """Kept clicks of U users: user u's are [offsets[u], offsets[u + 1]), ascending.

    items: [k] int64, row + 1. offsets: [U + 1] int64. kept_before: [n + 1] int64, kept clicks among the first i clicks
    of the histories. profiles: [U, P] int32.
    """

    items: NDArray[np.int64]
    offsets: NDArray[np.int64]
    kept_before: NDArray[np.int64]
    profiles: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.profiles)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[U] int64, kept clicks of each user."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, histories: Histories, rule: LongSequenceRule, fields: FeatureAssembler) -> KeptHistories:
        """Filter every user's clicks (arXiv 2508.00450, eq. 3)."""
        kept = np.zeros(len(histories.items), np.bool_)
        for start, end in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
            kept[start:end] = kept_clicks(histories.items[start:end], histories.categories[start:end], rule)
        kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        profiles = [fields.encode_profile(profile) for profile in histories.profiles]
        return cls(
            items=histories.items[kept],
            offsets=kept_before[histories.offsets],
            kept_before=kept_before,
            profiles=np.stack(profiles) if profiles else np.zeros((0, fields.profile_width), np.int32),
        )

    def lengths_before(self, histories: Histories, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count each user's kept clicks strictly before times[u]. histories: these are the kept clicks of."""
        counts = [histories.count_before(user, time) for user, time in enumerate(times.tolist())]
        kept: NDArray[np.int64] = self.kept_before[histories.offsets[:-1] + np.array(counts, np.int64)]
        return kept - self.offsets[:-1]

    def stretches(self, users: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Stretches:
        """Lay out kept clicks [starts, starts + lengths) of some users."""
        places = np.arange(lengths.max(initial=0))
        rows = self.offsets[users, None] + starts[:, None] + places
        inside = places < lengths[:, None]
        items = np.zeros(rows.shape, np.int64)
        items[inside] = self.items[rows[inside]]
        return Stretches(users, starts, lengths, items, self.profiles[users])

    def latest(self, ends: NDArray[np.int64], most: int | None, positions: int) -> Iterator[Stretches]:
        """Go through all users: the latest `most` of each one's first ends[u] kept clicks, or all of them.

        positions: of a batch at most, padding included (one user at least).
        """
        lengths = ends if most is None else np.minimum(ends, most)
        for users in of_like_length(lengths, positions):
            yield self.stretches(users, ends[users] - lengths[users], lengths[users])


def of_like_length(lengths: NDArray[np.int64], positions: int) -> list[NDArray[np.int64]]:
    """Divide users into batches of like length, so that little is padded; positions: of a batch at most, if it can."""
    order = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * (lengths[order[end]] + 1) <= positions:
            end += 1
        batches.append(order[start:end])
        start = end
    return batches


def sequence_rule(histories: Histories, config: SequenceConfig, length: int) -> LongSequenceRule:
    """Decide which clicks count. length: latest kept clicks the network reads."""
    counted: Counted = "item" if config.counted == "item" else "category"
    if config.counted == "auto" and repeat_share(histories) >= _REPEAT_SHARE:
        counted = "item"
    return LongSequenceRule(config.threshold, counted, length, config.min_clicks)


def repeat_share(histories: Histories) -> float:
    """Give the share of clicks on an item that the same user clicked before; 0 without clicks."""
    if not len(histories.items):
        return 0.0
    pairs = histories.users * (histories.items.max() + 1) + histories.items
    return 1 - len(np.unique(pairs)) / len(pairs)
