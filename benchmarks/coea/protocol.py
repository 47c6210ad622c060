"""What is compared, on what: the split, and the users asked for.

The task (arXiv 2508.00450, section 3.1): given a user's clicks, name categories outside C_s, the user's latest
`sequence.SHORT_CATEGORIES` distinct categories. Candidates are the catalogue's categories outside C_s, for all rows
alike. Two splits:

leave-last-out   (MovieLens-1M, as in BERT4Rec) a user's last click is tested, the one before it validated, the rest
                 trained on; users with fewer than three clicks only train. Which of several clicks of the same second
                 is the last is decided by the order of `Histories`, (time, item id).
by time          the last 10 % of all clicks are tested, the 10 % before validated; targets are the distinct categories
                 a user clicks in the period, for users with a click before it.

Methods are fitted on the training clicks. Those asked at validation know the training clicks; those asked at the test
know the validation's too, but are not fitted again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.sequence import latest_distinct
from serendipity.novelty import NO_CATEGORY, Clicks
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times

LONG_TAIL_SHARE = 0.2
"""Share of the categories, the least clicked ones, that are the long tail (appendix A.4.4)."""

_MIN_CLICKS = 3
_TIME_SHARES = (0.8, 0.9)


@dataclass(frozen=True)
class Episodes:
    """Users who are asked for, what is known of each, and what each then clicked. Column c is category number c + 1.

    users: [n] int64, user numbers, ascending. histories: of all U users, the clicks known when they are asked and no
    others, so that a model's state "as of the end" is the one to use. targets: [n, C] bool, categories clicked next.
    recent: one tuple a user, C_s as category numbers, newest first. clicked: [n, C] bool, P_u, the categories of the
    history. tied: [n] bool, whether a target was clicked in the very second of the latest click known.
    """

    users: NDArray[np.int64]
    histories: Histories
    targets: NDArray[np.bool_]
    recent: tuple[tuple[int, ...], ...]
    clicked: NDArray[np.bool_]
    tied: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def candidates(self) -> NDArray[np.bool_]:
        """[n, C] bool, the categories that may be on a user's list: all outside C_s."""
        allowed = np.ones(self.targets.shape, np.bool_)
        for row, recent in enumerate(self.recent):
            allowed[row, np.asarray(recent, np.int64) - 1] = False
        return allowed

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """[n, C] bool, targets outside C_s: all that can be hit."""
        found: NDArray[np.bool_] = self.targets & self.candidates
        return found

    @cached_property
    def novel_targets(self) -> NDArray[np.bool_]:
        """[n, C] bool, targets in no click of the history."""
        found: NDArray[np.bool_] = self.targets & ~self.clicked
        return found

    @classmethod
    def of(
        cls,
        known: Histories,
        users: NDArray[np.int64],
        targets: NDArray[np.bool_],
        num_categories: int,
        since: NDArray[np.int64] | None = None,
    ) -> Episodes:
        """Gather what is known of the users. targets: [n, C] bool, in the order of `users`; since: [n] int64, Unix
        seconds of the first click on a target, none where all come after what is known."""
        clicked = category_counts(known, num_categories)[users] > 0
        recent = []
        for user in users.tolist():
            clicks = slice(int(known.offsets[user]), int(known.offsets[user + 1]))
            newest_first = Clicks(known.items[clicks][::-1], known.categories[clicks][::-1], known.times[clicks][::-1])
            recent.append(tuple(latest_distinct(newest_first)))
        tied = np.zeros(len(users), np.bool_)
        if since is not None:
            known_any = known.offsets[users + 1] > known.offsets[users]
            tied[known_any] = known.times[known.offsets[users + 1][known_any] - 1] >= since[known_any]
        return cls(users, known, targets, tuple(recent), clicked, tied)


@dataclass(frozen=True)
class CategorySplit:
    """Clicks to learn from, and the episodes that choices are made on and that figures come from.

    kind: of the split; training: Histories of all U users with the training clicks alone, neither searches nor signals.
    """

    kind: Literal["leave-last-out", "time"]
    catalogue: Catalogue
    training: Histories
    validation: Episodes
    test: Episodes

    @property
    def num_categories(self) -> int:
        """C."""
        return len(self.catalogue.categories)

    @cached_property
    def category_clicks(self) -> NDArray[np.int64]:
        """[C] int64, training clicks of each category."""
        clicks: NDArray[np.int64] = np.bincount(self.training.categories, minlength=self.num_categories + 1)[1:]
        return clicks

    @cached_property
    def long_tail(self) -> NDArray[np.bool_]:
        """[C] bool, the ⌊0.2 · C⌋ (at least one) categories with the fewest training clicks; ties by number."""
        tail = np.zeros(self.num_categories, np.bool_)
        tail[np.argsort(self.category_clicks, kind="stable")[: max(1, int(LONG_TAIL_SHARE * len(tail)))]] = True
        return tail

    @classmethod
    def leave_last_out(cls, histories: Histories, catalogue: Catalogue) -> CategorySplit:
        """Hold out the last click of every user with at least three, and the one before it for validation."""
        counts = np.diff(histories.offsets)
        users = np.flatnonzero(counts >= _MIN_CLICKS).astype(np.int64)
        last = histories.offsets[users + 1] - 1
        known = np.ones(len(histories.items), np.bool_)
        known[last] = False
        at_test = _with_clicks(histories, known)
        known[last - 1] = False
        training = _with_clicks(histories, known)
        num_categories = len(catalogue.categories)

        def episodes(seen: Histories, held_out: NDArray[np.int64]) -> Episodes:
            targets = np.zeros((len(users), num_categories + 1), np.bool_)
            targets[np.arange(len(users)), histories.categories[held_out]] = True
            since = histories.times[held_out]
            return Episodes.of(seen, users, targets[:, NO_CATEGORY + 1 :], num_categories, since)

        return cls("leave-last-out", catalogue, training, episodes(training, last - 1), episodes(at_test, last))

    @classmethod
    def by_time(cls, histories: Histories, catalogue: Catalogue) -> CategorySplit:
        """Hold out the last 10 % of all clicks, and the 10 % before them for validation."""
        first, second = split_times(histories, _TIME_SHARES)
        num_categories = len(catalogue.categories)

        def episodes(cut: int, until: int) -> Episodes:
            seen = _with_clicks(histories, histories.times < cut)
            period = _with_clicks(histories, (histories.times >= cut) & (histories.times < until))
            targets = category_counts(period, num_categories) > 0
            users = np.flatnonzero((np.diff(seen.offsets) > 0) & targets.any(axis=1)).astype(np.int64)
            return Episodes.of(seen, users, targets[users], num_categories)

        end = int(histories.times.max()) + 1
        validation = episodes(first, second)
        return cls("time", catalogue, validation.histories, validation, episodes(second, end))


def category_counts(histories: Histories, num_categories: int) -> NDArray[np.int64]:
    """Count every user's clicks on every category: [U, C] int64, column c being category number c + 1."""
    width = num_categories + 1
    places = histories.users.astype(np.int64) * width + histories.categories
    counts = np.bincount(places, minlength=len(histories) * width).reshape(len(histories), width)
    return counts[:, NO_CATEGORY + 1 :].astype(np.int64)


def _with_clicks(histories: Histories, kept: NDArray[np.bool_]) -> Histories:
    nothing = np.zeros(len(histories) + 1, np.int64)
    return replace(
        histories,
        offsets=np.concatenate([[0], np.cumsum(kept)])[histories.offsets].astype(np.int64),
        items=histories.items[kept],
        categories=histories.categories[kept],
        times=histories.times[kept],
        search_offsets=nothing,
        searches=[],
        search_times=np.empty(0, np.int64),
        signal_offsets=nothing,
        signal_items=np.empty(0, np.int64),
        signal_times=np.empty(0, np.int64),
    )
