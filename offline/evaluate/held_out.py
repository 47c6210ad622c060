"""What is held out: the items users turned to after a cut, and what was known of them at the cut.

The protocol, everywhere: clicks before `cut` are training, targets are the distinct (user, item) pairs of
[cut, until) that are new to the user, with user and item both seen in training. A target is novel when its
category is not among the user's latest 200 clicks at the cut (frozen). Candidates are all items seen in
training minus the user's own, for the novel figures those of novel categories. Equal scores are put in one
random order, the same for every method. Figures are averaged over users with at least one target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from serendipity.novelty import CLICK_WINDOW, clicked_categories
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

Score = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Users [b] (numbers) → scores [b, m] of the candidate rows."""


MISSING = np.iinfo(np.int64).max
"""Place of a target that is not in a list."""


@dataclass(frozen=True)
class Targets:
    """Targets of some users as compressed rows.

    users: [n] int64 user numbers, ascending; offsets: [n + 1]; rows: item rows of users[i] at
    [offsets[i], offsets[i + 1]), ascending.
    """

    users: NDArray[np.int64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[n] targets of each user."""
        return np.diff(self.offsets)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """[t] place of each target's user in `users`."""
        return np.repeat(np.arange(len(self)), self.counts)

    def places(self, ranked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the place of every target in its user's list, counted from 0: [t]; MISSING where it is not there.

        ranked: [users, K] item rows in the order of `users`, −1 for none; of an item that comes twice the first place
        counts. Raises ValueError for another number of lists.
        """
        if len(ranked) != len(self):
            raise ValueError(f"targets: found {len(ranked)} lists, expected one for each of {len(self)} users")
        length = ranked.shape[1]
        span = int(max(ranked.max(initial=-1), self.rows.max(initial=-1))) + 2
        keys = (np.arange(len(ranked))[:, None] * span + ranked + 1).ravel()
        unique, first = np.unique(keys, return_index=True)
        wanted = self.owners * span + self.rows + 1
        places = np.full(len(wanted), MISSING, np.int64)
        if len(unique):
            at = np.minimum(np.searchsorted(unique, wanted), len(unique) - 1)
            there = unique[at] == wanted
            places[there] = first[at[there]] % length
        return places

    def hits(self, ranked: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark the places that hold a target, [users, K]; of an item that comes twice the first place."""
        places = self.places(ranked)
        hit = np.zeros(ranked.shape, np.bool_)
        there = places < MISSING
        hit[self.owners[there], places[there]] = True
        return hit

    def recall(self, ranked: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Recall@k of each user: targets among the first k / all targets. Returns [users]."""
        found = np.bincount(self.owners, self.places(ranked) < k, len(self))
        recall: NDArray[np.float64] = found / self.counts
        return recall

    @classmethod
    def from_pairs(cls, users: NDArray[np.int64], rows: NDArray[np.int64]) -> Targets:
        """Group (user, row) pairs, without duplicates, by user."""
        order = np.lexsort((rows, users))
        unique, counts = np.unique(users, return_counts=True)
        return cls(unique.astype(np.int64), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), rows[order])

    def of_users(self, users: NDArray[np.int64]) -> Targets:
        """Keep the targets of some of the users."""
        owners = self.users[self.owners]
        kept = np.isin(owners, users)
        return Targets.from_pairs(owners[kept], self.rows[kept])


@dataclass(frozen=True)
class HeldOut:
    """Targets after a cut and everything that restricts candidates.

    cut, until: Unix seconds; candidates: [m] int64 rows seen in training; seen: [U, n] CSR of the training clicks
    (1 for every distinct pair); clicked: [U, categories + 1] bool, novelty.clicked_categories of every user at the
    cut; item_categories: [n] int32; targets: all, novel: those of novel categories.
    """

    cut: int
    until: int
    candidates: NDArray[np.int64]
    seen: sparse.csr_matrix
    clicked: NDArray[np.bool_]
    item_categories: NDArray[np.int32]
    targets: Targets
    novel: Targets

    @classmethod
    def between(cls, histories: Histories, catalogue: Catalogue, cut: int, until: int) -> HeldOut:
        """Hold out the clicks of [cut, until) against everything before the cut."""
        num_users, num_items = len(histories), len(catalogue)
        users, rows, times = histories.users.astype(np.int64), histories.items - 1, histories.times
        known = rows >= 0
        before = known & (times < cut)
        after = known & (times >= cut) & (times < until)
        trained = np.unique(users[before] * num_items + rows[before])
        seen = sparse.csr_matrix(
            (np.ones(len(trained), np.float32), (trained // num_items, trained % num_items)),
            shape=(num_users, num_items),
        )
        item_seen = np.bincount(trained % num_items, minlength=num_items) > 0
        pairs = np.unique(users[after] * num_items + rows[after])
        pairs = pairs[~np.isin(pairs, trained, assume_unique=True)]
        pairs = pairs[(np.diff(seen.indptr) > 0)[pairs // num_items] & item_seen[pairs % num_items]]
        clicked = np.stack(
            [
                clicked_categories(histories.clicks_before(user, cut), len(catalogue.categories), CLICK_WINDOW)
                for user in range(num_users)
            ]
        )
        owner, row = pairs // num_items, pairs % num_items
        novel = ~clicked[owner, catalogue.item_categories[row]]
        return cls(
            cut=cut,
            until=until,
            candidates=np.flatnonzero(item_seen).astype(np.int64),
            seen=seen,
            clicked=clicked,
            item_categories=catalogue.item_categories,
            targets=Targets.from_pairs(owner, row),
            novel=Targets.from_pairs(owner[novel], row[novel]),
        )

    def top_k(
        self,
        score: Score,
        users: NDArray[np.int64],
        k: int,
        *,
        novel: bool,
        excluded: NDArray[np.int64] | None = None,
        batch: int = 256,
    ) -> NDArray[np.int64]:
        """Rank the candidates of each user. Returns [len(users), k] item rows, best first, −1 where there are fewer.

        excluded: [len(users), e] further rows that may not be returned, −1 for none.
        """
        found = np.full((len(users), k), -1, np.int64)
        place = np.full(len(self.item_categories), -1, np.int64)
        place[self.candidates] = np.arange(len(self.candidates))
        categories = self.item_categories[self.candidates]
        # In the order of the columns, equal scores would favour the categories that come first.
        priority = np.random.default_rng(0).permutation(len(self.candidates))
        width = min(k, len(self.candidates))
        for start in range(0, len(users), batch):
            some = users[start : start + batch]
            scores = np.array(score(some), np.float32)
            own = self.seen[some]
            scores[np.repeat(np.arange(len(some)), np.diff(own.indptr)), place[own.indices]] = -np.inf
            if novel:
                scores[self.clicked[some][:, categories]] = -np.inf
            if excluded is not None:
                unwanted = excluded[start : start + batch]
                columns = np.where(unwanted >= 0, place[unwanted], -1)
                rows, at = np.nonzero(columns >= 0)
                scores[rows, columns[rows, at]] = -np.inf
            found[start : start + len(some), :width] = self._best(scores, width, priority)
        return found

    def _best(self, scores: NDArray[np.float32], width: int, priority: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take the `width` candidates of highest score, equal ones by priority; −1 for scores of −∞."""
        kept = min(width + 1, scores.shape[1])
        top = torch.from_numpy(scores).topk(kept, dim=1)
        values, columns = top.values.numpy(), top.indices.numpy()
        # topk leaves open which of the scores that equal the last one it takes.
        for row in np.flatnonzero((values[:, width - 1] == values[:, -1]) & (values[:, -1] > -np.inf) & (kept > width)):
            last = np.flatnonzero(scores[row] == values[row, -1])
            above = np.flatnonzero(values[row] > values[row, -1])
            last = last[np.argsort(priority[last])][: kept - len(above)]
            columns[row, len(above) :] = last
        order = np.lexsort((priority[columns], -values), axis=1)[:, :width]
        best = self.candidates[np.take_along_axis(columns, order, 1)]
        found: NDArray[np.int64] = np.where(np.take_along_axis(values, order, 1) > -np.inf, best, -1)
        return found
