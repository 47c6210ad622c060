"""Point-in-time training rows: features and interests from before t₀, labels from [t₀, t₁).

The features are laid out by serendipity.features.FeatureAssembler itself, the code that serving runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serendipity.features import FeatureAssembler, TowerInputs
from serendipity.novelty import clicked_categories
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.item_statistics import ItemClicks, ItemStatistics
from serendipity.offline.towers.factors import ItemFactors
from serendipity.offline.towers.interests import InterestNodes, InterestsAt


@dataclass(frozen=True)
class ItemState:
    """What is known of the n items at a moment.

    statistics: [n, F] float32, from `item_features`; factors: as of the moment; users: [n] int64, distinct users who
    clicked the item before.
    """

    statistics: NDArray[np.float32]
    factors: ItemFactors
    users: NDArray[np.int64]


@dataclass(frozen=True)
class Moment:
    """R users as they stood at `time`, and the items.

    users: [R] int64 numbers. inputs: the assembler's, with interests left out ([R, 0, D]; `interests` fills them in).
    nodes: [R, K] int32 interest node ids. clicked: [R, categories + 1] bool (serendipity.novelty). Items clicked before
    are seen_rows[seen_offsets[r] : seen_offsets[r + 1]], distinct, ascending.
    """

    time: int
    users: NDArray[np.int64]
    inputs: TowerInputs
    nodes: NDArray[np.int32]
    clicked: NDArray[np.bool_]
    seen_offsets: NDArray[np.int64]
    seen_rows: NDArray[np.int64]
    items: ItemState

    def __len__(self) -> int:
        return len(self.users)

    def take(self, index: NDArray[np.int64], node_vectors: NDArray[np.float32]) -> TowerInputs:
        """Give the inputs of some rows, interests included: exactly what the assembler gives at serving."""
        chosen = {name: getattr(self.inputs, name)[index] for name in _COLUMNS}
        return TowerInputs(**chosen, interests=embed_nodes(self.nodes[index], node_vectors))


@dataclass(frozen=True)
class TrainingRows:
    """A moment t₀ and what its users clicked in [t₀, t₁).

    Row r's positives, distinct and new to the user, are at [offsets[r], offsets[r + 1]) of: rows, [P] int64 item rows;
    slots, [P] int64, 1 … K the interest the item's category is grounded in, 0 the null interest; novel, [P] bool.
    """

    moment: Moment
    until: int
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    slots: NDArray[np.int64]
    novel: NDArray[np.bool_]


_COLUMNS = ("history_items", "history_ages", "long_categories", "long_counts", "long_ages", "profile")


def embed_nodes(nodes: NDArray[np.int32], node_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Look the text embeddings of node ids up: [B, K] → [B, K, D], zeros for NO_NODE."""
    vectors: NDArray[np.float32] = node_vectors[np.maximum(nodes, 0)]
    vectors[nodes < 0] = 0.0
    return vectors


class RowsBuilder:
    """Makes moments and rows from histories; holds what does not change from cut to cut."""

    def __init__(
        self,
        histories: Histories,
        catalogue: Catalogue,
        assembler: FeatureAssembler,
        interest_nodes: InterestNodes,
        interests_at: InterestsAt,
    ) -> None:
        """Sort the clicks once. interests_at: whose interests were which when."""
        self.histories = histories
        self.catalogue = catalogue
        self.assembler = assembler
        self.interest_nodes = interest_nodes
        self._interests_at = interests_at
        self._item_clicks = ItemClicks(histories, len(catalogue))
        # Rows hold node ids and embed a batch at a time: embeddings of all would not fit into memory.
        self._without_interests = replace(assembler, max_interests=0)
        self._profiles = [assembler.encode_profile(profile) for profile in histories.profiles]

    def moment(self, factors: ItemFactors, users: NDArray[np.int64] | None = None) -> Moment:
        """Lay out users as of the factors' moment; by default all with a click before it."""
        histories, time = self.histories, factors.time
        if users is None:
            users = np.unique(histories.users[histories.times < time]).astype(np.int64)
        parts, clicked, seen = [], [], []
        for user in users.tolist():
            clicks = histories.clicks_before(user, time)
            long_history = histories.long_history_before(user, time)
            empty = np.empty((0, self.assembler.interest_dim), np.float32)
            parts.append(self._without_interests.assemble(clicks, long_history, self._profiles[user], empty, time))
            clicked.append(clicked_categories(clicks, len(self.catalogue.categories)))
            start = int(histories.offsets[user])
            items = np.unique(histories.items[start : start + histories.count_before(user, time)])
            seen.append(items[items > 0] - 1)
        statistics = self._item_clicks.at(time)
        return Moment(
            time=time,
            users=users,
            inputs=TowerInputs.stack(parts),
            nodes=self._interests_at(time, users.tolist(), self.assembler.max_interests),
            clicked=np.stack(clicked),
            seen_offsets=_offsets([len(rows) for rows in seen]),
            seen_rows=np.concatenate(seen),
            items=ItemState(item_features(statistics, self.catalogue.prices), factors, statistics.users),
        )

    def rows(self, factors: ItemFactors, until: int) -> TrainingRows | None:
        """Make the rows of the factors' moment t₀, of users with a new item in [t₀, until); None without any."""
        time = factors.time
        num_items = len(self.catalogue)
        histories = self.histories
        users, items = histories.users.astype(np.int64), histories.items - 1
        before = (histories.times < time) & (items >= 0)
        within = (histories.times >= time) & (histories.times < until) & (items >= 0)
        pairs = np.setdiff1d(users[within] * num_items + items[within], users[before] * num_items + items[before])
        known = np.unique(users[before])
        pairs = pairs[np.isin(pairs // num_items, known)]
        if not len(pairs):
            return None
        owners, counts = np.unique(pairs // num_items, return_counts=True)
        moment = self.moment(factors, owners)
        rows = pairs % num_items
        row = np.repeat(np.arange(len(owners)), counts)
        return TrainingRows(
            moment=moment,
            until=until,
            offsets=_offsets(counts.tolist()),
            rows=rows,
            slots=self.interest_nodes.slots(moment.nodes[row], rows),
            novel=~moment.clicked[row, self.catalogue.item_categories[rows]],
        )


TREND_COLUMNS = (0, 1)
"""Columns of `item_features` with the trends of the last 7 and 28 days."""


def item_features(statistics: ItemStatistics, prices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay item statistics out for the item tower: [n, F] float32, each column roughly within ±3 (popularity higher).

    Trends: log of the clicks of the last 7 and 28 days against what the item's clicks ever lead to expect, smoothed.
    Users, scaled. Log shares of the clicks of each window, of the decayed popularity and of the users; log clicks per
    user (repeat rate); log age in days; log price where known.
    """
    trends = [statistics.log_trend(days) for days in (7, 28)]
    popularity = statistics.users / max(float(statistics.users[statistics.users > 0].std()), 1e-9)
    windows = [*statistics.recent_clicks, statistics.popularity, statistics.users]
    shares = [np.log((count + 0.3) / max(float(count.sum()), 1.0) * 1e5) / 2 for count in windows]
    repeats = np.log((statistics.clicks + 1) / (statistics.users + 1))
    age = np.log1p(np.maximum(statistics.age, 0) / 86_400) / 3
    price = np.nan_to_num(np.log1p(prices.astype(np.float64)) - 1.2)
    columns = [*trends, popularity, *shares, repeats, age, statistics.age < 0, price, np.isnan(prices)]
    features: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return features


def _offsets(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
