"""Histories as sequences of the items a sequential model tells apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

PADDING = 0


@dataclass(frozen=True)
class ItemSequences:
    """Clicks of U users, oldest first: user u's are items[offsets[u] : offsets[u + 1]], numbers from 1."""

    items: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def windows(self, ends: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cut, before each of some places in `items`, the latest `length` clicks of the user before it.

        A place on the border of two users belongs to the first. Returns ([n, length], PADDING behind; [n] filled).
        """
        starts = self.offsets[np.searchsorted(self.offsets, ends, side="left") - 1]
        starts = np.maximum(starts, ends - length)
        places = starts[:, None] + np.arange(length)
        inside = places < ends[:, None]
        found = np.where(inside, self.items[np.where(inside, places, 0)], PADDING)
        return found, (ends - starts).astype(np.int64)

    def ends_after_another(self) -> NDArray[np.int64]:
        """List the places after every click that follows another of the same user."""
        is_first = np.zeros(len(self.items) + 1, np.bool_)
        is_first[self.offsets] = True
        return np.flatnonzero(~is_first[:-1]).astype(np.int64) + 1

    def with_last_held_out(
        self, most: int, rng: np.random.Generator
    ) -> tuple[ItemSequences, ItemSequences, NDArray[np.int64]]:
        """Hold out the last click of `most` users at most, of those with three: (all without, before it, it)."""
        users = np.flatnonzero(np.diff(self.offsets) >= 3)
        users = np.sort(rng.permutation(users)[:most])
        last = self.offsets[users + 1] - 1
        kept = np.ones(len(self.items), np.bool_)
        kept[last] = False
        rest = ItemSequences(self.items[kept], np.concatenate([[0], np.cumsum(kept)])[self.offsets].astype(np.int64))
        return rest, rest.of(users), self.items[last]

    def of(self, users: NDArray[np.int64]) -> ItemSequences:
        """Take some users, in their order."""
        lengths = np.diff(self.offsets)[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.offsets[users] - offsets[:-1], lengths) + np.arange(int(offsets[-1]))
        return ItemSequences(self.items[places], offsets)


@dataclass(frozen=True)
class ItemVocabulary:
    """Which items are told apart.

    numbers: [n] int64 by catalogue row, from 1. shares: [n] float32, log of the row's share in its number: 0, or
    −log(rows of the number). size: highest number.
    """

    numbers: NDArray[np.int64]
    shares: NDArray[np.float32]
    size: int

    @classmethod
    def of(cls, histories: Histories, catalogue: Catalogue, most: int) -> ItemVocabulary:
        """Tell the `most` most clicked items apart (ties: by row); the rest of a category is one number.

        So that no click is lost to a category, and what a softmax costs does not grow with the catalogue.
        """
        clicks = np.bincount(histories.items, minlength=len(catalogue) + 1)[1:]
        chosen = np.argsort(-clicks, kind="stable")[:most]
        chosen = np.sort(chosen[clicks[chosen] > 0])
        numbers = np.zeros(len(catalogue), np.int64)
        numbers[chosen] = np.arange(1, len(chosen) + 1)
        rest = numbers == 0
        kinds, places = np.unique(catalogue.item_categories[rest], return_inverse=True)
        numbers[rest] = len(chosen) + 1 + places
        rows = np.bincount(numbers)
        return cls(numbers, -np.log(rows[numbers]).astype(np.float32), len(chosen) + len(kinds))

    def sequences(self, histories: Histories) -> ItemSequences:
        """Translate histories. Clicks on what is not in the catalogue are left out."""
        known = histories.items > 0
        offsets = np.concatenate([[0], np.cumsum(known)])[histories.offsets].astype(np.int64)
        return ItemSequences(self.numbers[histories.items[known] - 1], offsets)

    def item_scores(self, log_probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spread the log-probabilities of numbers, [b, size + 1], evenly over the catalogue's rows: [b, n]."""
        scores: NDArray[np.float32] = log_probabilities[:, self.numbers] + self.shares
        return scores
