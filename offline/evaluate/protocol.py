"""The protocol every method is measured by: one cut in time, and what users newly took after it.

Target: an item the user clicked in [cut, until) and never before. Novel target: one whose top-level category is not
among the user's latest 200 clicks at the cut (frozen), or, for rolling novelty, not among the latest 200 clicks just
before the click itself. Cold users have no click before the cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.novelty import clicked_categories, is_novel
from serendipity.offline.evaluate.metrics import TargetLists
from serendipity.offline.logs.histories import Histories


@dataclass(frozen=True)
class Period:
    """A period of evaluation, in Unix seconds: everything before `cut` is known, [cut, until) is to be foretold."""

    cut: int
    until: int

    def __post_init__(self) -> None:
        if not self.cut < self.until:
            raise ValueError(f"Period: found cut {self.cut} and until {self.until}, expected cut < until")

    @property
    def days(self) -> float:
        """How long it is."""
        return (self.until - self.cut) / 86_400


@dataclass(frozen=True)
class Targets:
    """The users who took something new in a period, and what.

    users: [U] int64 user numbers of the histories, ascending; cold: [U] bool, no click before the cut. lists: targets
    by position in `users`; novel, rolling_novel: [n] bool, by target.
    """

    users: NDArray[np.int64]
    cold: NDArray[np.bool_]
    lists: TargetLists
    novel: NDArray[np.bool_]
    rolling_novel: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def novel_lists(self) -> TargetLists:
        """Targets that are novel at the cut."""
        return self.lists.where(self.novel)

    @property
    def rolling_novel_lists(self) -> TargetLists:
        """Targets that are novel at the moment of their click."""
        return self.lists.where(self.rolling_novel)

    def of_users(self, chosen: NDArray[np.bool_]) -> Targets:
        """Keep the users that are marked, [U] bool."""
        targets = chosen[self.lists.users]
        return Targets(
            self.users[chosen],
            self.cold[chosen],
            self.lists.of_users(chosen),
            self.novel[targets],
            self.rolling_novel[targets],
        )


def find_targets(histories: Histories, period: Period, num_categories: int) -> Targets:
    """Find every user's targets in a period, in the order of their first click. Users without targets are left out."""
    users, cold, counts = [], [], []
    items: list[NDArray[np.int64]] = []
    novel: list[NDArray[np.bool_]] = []
    rolling: list[NDArray[np.bool_]] = []
    for user in range(len(histories)):
        start = int(histories.offsets[user])
        first = start + histories.count_before(user, period.cut)
        last = start + histories.count_before(user, period.until)
        clicked = histories.items[first:last]
        new, positions = np.unique(clicked, return_index=True)
        fresh = (new > 0) & ~np.isin(new, histories.items[start:first])
        positions = np.sort(positions[fresh])
        if not len(positions):
            continue
        categories = histories.categories[first:last][positions]
        known = clicked_categories(histories.clicks_before(user, period.cut), num_categories)
        users.append(user)
        cold.append(first == start)
        counts.append(len(positions))
        items.append(clicked[positions])
        novel.append(is_novel(categories, known))
        rolling.append(_novel_when_clicked(histories, user, first + positions, num_categories))
    return Targets(
        users=np.array(users, np.int64),
        cold=np.array(cold, np.bool_),
        lists=TargetLists(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([np.empty(0, np.int64), *items]),
        ),
        novel=np.concatenate([np.empty(0, np.bool_), *novel]),
        rolling_novel=np.concatenate([np.empty(0, np.bool_), *rolling]),
    )


def _novel_when_clicked(
    histories: Histories, user: int, clicks: NDArray[np.int64], num_categories: int
) -> NDArray[np.bool_]:
    novel = np.zeros(len(clicks), np.bool_)
    moments: dict[int, NDArray[np.bool_]] = {}
    for i, click in enumerate(clicks.tolist()):
        time = int(histories.times[click])
        # Baskets: many clicks of one moment share one history.
        if time not in moments:
            moments = {time: clicked_categories(histories.clicks_before(user, time), num_categories)}
        novel[i] = not moments[time][histories.categories[click]]
    return novel
