"""Batches: users of one cut, the candidates drawn for them, and what every pair weighs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serendipity.features import INPUT_NAMES
from serendipity.offline.towers.config import LossConfig
from serendipity.offline.towers.interests import NO_NODE, InterestNodes
from serendipity.offline.towers.rows import TrainingRows, embed_nodes
from serendipity.offline.towers.user_tower import UserTower

NOVEL_WEIGHT = 2.0
"""Weight of a (user, item) pair whose category is novel to the user, against 1: novel pairs are what is served."""

ACTIVITY_POWER = 0.5
"""A user with n positives weighs n^(−this): 0 would count clicks alike, 1 users."""

_NEGATIVE_POWER = 0.75
"""α: an item is drawn with probability ∝ users^α."""

_INTEREST_ROWS = 2
"""Interest rows (I2I) drawn per user and batch, next to the user's row alone (U2I)."""


@dataclass(frozen=True)
class Batch:
    """B users of one cut with S drawn interests each, and M candidates.

    pooled: [B, pooled_dim], profile: [B, P] and interests: [B, S, D], as UserTower.combine takes them. nodes: [B, S],
    NO_NODE where a user has none. candidates: [M] item rows. weights: [B, M] of the negatives (0: positive, seen or not
    drawn). user_positives: [P] into the flattened [B, M]; user_weights: [P]. inside: [B · S, M] bool, the item is among
    those the interest is grounded in. interest_positives: [Q] into the flattened [B · S, M]; interest_weights: [Q].
    total: sum of the positives' weights, which losses are divided by.
    """

    pooled: Tensor
    profile: Tensor
    interests: Tensor
    nodes: Tensor
    candidates: Tensor
    weights: Tensor
    user_positives: Tensor
    user_weights: Tensor
    inside: Tensor
    interest_positives: Tensor
    interest_weights: Tensor
    total: float


class BatchSampler:
    """Draws the batches of one cut's rows."""

    def __init__(
        self,
        rows: TrainingRows,
        item_categories: NDArray[np.int32],
        nodes: InterestNodes,
        user_tower: UserTower,
        config: LossConfig,
        *,
        min_item_users: int,
        cold_share: float,
    ) -> None:
        """Pool the histories and prepare the draw: π_j = min(1, c · users_j^α) with Σ_j π_j = num_negatives."""
        self._rows = rows
        self._item_categories = item_categories
        self._nodes = nodes
        self._cold_share = cold_share
        self._pooled, self._cold = _pool(rows, user_tower)
        users = rows.moment.items.users
        self._known = users >= min_item_users
        self._inclusion = inclusion_probabilities(
            np.where(self._known, users, 0).astype(np.float64) ** _NEGATIVE_POWER * self._known,
            config.num_negatives,
        )
        trainable = self._known[rows.rows]
        counts = np.add.reduceat(np.append(trainable, False), rows.offsets[:-1]) * (np.diff(rows.offsets) > 0)
        self._counts = counts
        self.trainable_rows = np.flatnonzero(counts)
        """Rows with at least one positive that takes part."""
        self.num_positives = int(counts.sum())
        self.num_pairs = len(self.trainable_rows) * int(self._known.sum())
        """Positives that take part, and all pairs of user and item."""

    def draw(self, index: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Draw the batch of some rows."""
        rows = self._rows
        moment = rows.moment
        spans = [np.arange(rows.offsets[r], rows.offsets[r + 1]) for r in index]
        owner = np.repeat(np.arange(len(index)), [len(span) for span in spans])
        positives = np.concatenate(spans)
        kept = self._known[rows.rows[positives]]
        owner, positives = owner[kept], positives[kept]
        drawn = rng.random(len(self._inclusion)) < self._inclusion
        candidates = np.union1d(np.flatnonzero(drawn), rows.rows[positives])
        place = np.full(len(self._inclusion), -1, np.int64)
        place[candidates] = np.arange(len(candidates))

        weights = np.where(drawn[candidates], 1.0 / np.maximum(self._inclusion[candidates], 1e-9), 0.0)
        novel = ~moment.clicked[index][:, self._item_categories[candidates]]
        activity = self._counts[index] ** -ACTIVITY_POWER
        pair_weights = np.where(novel, NOVEL_WEIGHT, 1.0) * activity[:, None]
        negative = pair_weights * weights[None, :]
        for row, r in enumerate(index):
            seen = place[moment.seen_rows[moment.seen_offsets[r] : moment.seen_offsets[r + 1]]]
            negative[row, seen[seen >= 0]] = 0.0
        columns = place[rows.rows[positives]]
        negative[owner, columns] = 0.0
        positive_weights = pair_weights[owner, columns]

        slots = self._draw_slots(index, rng)
        chosen = rows.slots[positives, None] == slots[owner] + 1
        which, slot = np.nonzero(chosen & (slots[owner] >= 0))
        line = owner[which] * slots.shape[1] + slot
        nodes = np.where(slots >= 0, np.take_along_axis(moment.nodes[index], np.maximum(slots, 0), axis=1), NO_NODE)
        cold = rng.random(len(index)) < self._cold_share
        return Batch(
            pooled=torch.where(torch.from_numpy(cold)[:, None], self._cold, self._pooled[index]),
            profile=torch.from_numpy(moment.inputs.profile[index]),
            interests=torch.from_numpy(embed_nodes(nodes, self._nodes.vectors)),
            nodes=torch.from_numpy(nodes.astype(np.int64)),
            candidates=torch.from_numpy(candidates),
            weights=torch.from_numpy(negative.astype(np.float32)),
            user_positives=torch.from_numpy(owner * len(candidates) + columns),
            user_weights=torch.from_numpy(positive_weights.astype(np.float32)),
            inside=torch.from_numpy(self._inside(nodes.reshape(-1), candidates)),
            interest_positives=torch.from_numpy(line * len(candidates) + columns[which]),
            interest_weights=torch.from_numpy(positive_weights[which].astype(np.float32)),
            total=float(positive_weights.sum()),
        )

    def _inside(self, nodes: NDArray[np.int32], candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which candidates each node holds, [len(nodes), M]."""
        distinct, place = np.unique(nodes, return_inverse=True)
        held = (self._nodes.item_nodes[candidates][None, :, :] == distinct[:, None, None]).any(axis=2)
        held[distinct == NO_NODE] = False
        inside: NDArray[np.bool_] = held[place]
        return inside

    def _draw_slots(self, index: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw up to S = _INTEREST_ROWS of each user's interests without replacement: [B, S] positions, −1 for none."""
        nodes = self._rows.moment.nodes[index]
        keys = np.where(nodes != NO_NODE, rng.random(nodes.shape), 2.0)
        order = np.argsort(keys, axis=1)[:, :_INTEREST_ROWS]
        return np.where(np.take_along_axis(keys, order, axis=1) < 2.0, order, -1)


@torch.no_grad()
def _pool(rows: TrainingRows, user_tower: UserTower) -> tuple[Tensor, Tensor]:
    """Pool every row's history, and an empty one: what the assembler lays out for a user nothing is known of."""
    moment = rows.moment
    user_tower.load_factors(torch.from_numpy(moment.items.factors.clicked))
    names = [name for name in INPUT_NAMES if name not in ("profile", "interests")]
    columns = [torch.from_numpy(getattr(moment.inputs, name)) for name in names]
    parts = [user_tower.pool(*(c[start : start + 256] for c in columns)) for start in range(0, len(moment), 256)]
    return torch.cat(parts), user_tower.pool(*(torch.zeros_like(column[:1]) for column in columns))


def inclusion_probabilities(sizes: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Find π_j = min(1, c · sizes_j) with Σ π_j = min(number, items of positive size)."""
    order = np.argsort(-sizes, kind="stable")
    sizes = sizes[order]
    positive = int((sizes > 0).sum())
    if number >= positive:
        probability = (sizes > 0).astype(np.float64)
    else:
        # The m largest are certain; the rest share number − m in proportion to their sizes.
        tail = np.cumsum(sizes[::-1])[::-1]
        certain = np.arange(len(sizes))
        scale = np.maximum(number - certain, 0) / np.maximum(tail, 1e-300)
        m = int(np.argmax(scale * sizes <= 1.0))
        probability = np.minimum(1.0, scale[m] * sizes)
        probability[:m] = 1.0
    found = np.empty_like(probability)
    found[order] = probability
    return found


def plan_epoch(
    samplers: Sequence[BatchSampler], batch_users: int, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Shuffle the rows of every cut into batches of one cut, and the batches among each other."""
    batches: list[tuple[int, NDArray[np.int64]]] = []
    for cut, sampler in enumerate(samplers):
        rows = rng.permutation(sampler.trainable_rows)
        if len(rows):
            batches += [(cut, part) for part in np.array_split(rows, -(-len(rows) // batch_users))]
    for place in rng.permutation(len(batches)):
        yield batches[place]
