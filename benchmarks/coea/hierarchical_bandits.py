"""HUCB and pHUCB: exploration down a tree of categories (Song et al., WSDM 2022, arXiv 2110.09905).

The tree is made bottom-up: category vectors (factors of the user × category matrix) are clustered by k-means, level by
level, until few nodes are left; a node's vector is the mean of its children's. Each user has linear bandits over node
vectors x: A = I + Σ n x xᵀ, b = Σ r x, θ = A⁻¹b, and a node is worth θᵀx + α √(xᵀA⁻¹x).

HUCB: one bandit a level; from the root the best child is taken until a leaf is reached. The list is the order in which
leaves are reached when those already listed are left out.
pHUCB: one bandit over all visible nodes, the root's children at first; a visible node is replaced by its children once
it was visited at least p·ln(depth) times at a mean reward of at least q·ln(depth). The best visible node is taken, of
it the leaf the same bandit values most.

There is no one to interact with, so the training clicks are replayed: a click is a round in which all children of
the nodes on its path were on offer; the one taken is rewarded 1, its siblings 0. α is the trade-off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks.coea.protocol import CategorySplit, Episodes, Family, Method, Setting, category_counts

_ROOT_CHILDREN = 6
_BRANCHING = 4
_EXPLORATION = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class CategoryTree:
    """Levels below the root, the leaves (categories, in their order) last.

    vectors: one [nodes, d + 1] a level, the last column 1. parents: one [nodes] a level, the node above, 0 = the root's
    only place on the first level.
    """

    vectors: tuple[NDArray[np.float64], ...]
    parents: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, counts: NDArray[np.int64], dim: int, seed: int) -> CategoryTree:
        """Cluster categories by who clicks them. counts: [U, C] clicks."""
        shares = np.log1p(counts) - np.log1p(counts).mean(axis=0)
        _, scales, right = np.linalg.svd(shares, full_matrices=False)
        leaves = right[:dim].T * scales[:dim]
        leaves /= np.maximum(np.linalg.norm(leaves, axis=1, keepdims=True), 1e-9)
        vectors: list[NDArray[np.float64]] = [leaves]
        parents: list[NDArray[np.int64]] = []
        while len(vectors[0]) > _ROOT_CHILDREN:
            below = vectors[0]
            wanted = max(_ROOT_CHILDREN // 2, len(below) // _BRANCHING)
            parent = KMeans(min(wanted, len(below)), n_init=4, random_state=seed).fit(below).labels_
            used, parent = np.unique(parent, return_inverse=True)
            above = np.stack([below[parent == node].mean(axis=0) for node in range(len(used))])
            vectors.insert(0, above)
            parents.insert(0, parent.astype(np.int64))
        parents.insert(0, np.zeros(len(vectors[0]), np.int64))
        return cls(tuple(np.c_[level, np.ones(len(level))] for level in vectors), tuple(parents))

    def clicks(self, counts: NDArray[np.int64]) -> list[NDArray[np.float64]]:
        """Sum clicks up the tree. counts: [n, C]. Returns one [n, nodes] a level."""
        found = [counts.astype(np.float64)]
        for level in range(len(self.vectors) - 1, 0, -1):
            above = np.zeros((len(counts), len(self.vectors[level - 1])))
            np.add.at(above.T, self.parents[level], found[0].T)
            found.insert(0, above)
        return found

    def leaf_ancestors(self) -> list[NDArray[np.int64]]:
        """Node of each leaf on every level, the leaves' own last: one [C] a level."""
        found = [np.arange(len(self.vectors[-1]))]
        for parent in self.parents[:0:-1]:
            found.insert(0, parent[found[0]])
        return found


@dataclass(frozen=True)
class HierarchicalBandit:
    """The rows HUCB and pHUCB (progressive)."""

    progressive: bool
    dim: int = 12
    visits: float = 5.0
    """p."""
    reward: float = 0.1
    """q."""
    family: Family = "exploration"
    settings: tuple[Setting, ...] = field(default_factory=lambda: tuple({"alpha": alpha} for alpha in _EXPLORATION))

    @property
    def name(self) -> str:
        """Name in reports."""
        return "pHUCB" if self.progressive else "HUCB"

    @property
    def configuration(self) -> Mapping[str, object]:
        """Size and thresholds."""
        return {"progressive": self.progressive, "dim": self.dim, "visits": self.visits, "reward": self.reward}

    def fit(self, split: CategorySplit, seed: int) -> FittedBandit:
        """Make the tree; users' bandits follow from their histories when they are asked for."""
        tree = CategoryTree.of(category_counts(split.training, split.num_categories), self.dim, seed)
        return FittedBandit(self, tree, split.num_categories)


@dataclass(frozen=True)
class FittedBandit:
    """Replays the histories of the episodes over the tree."""

    method: HierarchicalBandit
    tree: CategoryTree
    num_categories: int

    def scores(self, episodes: Episodes, setting: Setting) -> NDArray[np.float32]:
        """Rank the leaves: minus their place in the order they are reached, [n, C]."""
        counts = category_counts(episodes.histories, self.num_categories)[episodes.users]
        clicks = self.tree.clicks(counts)
        offers = [
            clicks[level - 1][:, parent] if level else np.repeat(clicks[0].sum(axis=1, keepdims=True), len(parent), 1)
            for level, parent in enumerate(self.tree.parents)
        ]
        ancestors = self.tree.leaf_ancestors()
        if self.method.progressive:
            return self._visible_first(clicks, offers, ancestors, setting["alpha"])
        values = [
            upper_bounds([vectors], [taken], [offered], setting["alpha"])[0]
            for vectors, taken, offered in zip(self.tree.vectors, clicks, offers, strict=True)
        ]
        return _path_order([value[:, nodes] for value, nodes in zip(values, ancestors, strict=True)], ancestors)

    def _visible_first(
        self,
        clicks: list[NDArray[np.float64]],
        offers: list[NDArray[np.float64]],
        ancestors: list[NDArray[np.int64]],
        alpha: float,
    ) -> NDArray[np.float32]:
        values = upper_bounds(list(self.tree.vectors), clicks, offers, alpha)
        num_users = len(clicks[0])
        visible_value = np.zeros((num_users, self.num_categories))
        visible_level = np.full((num_users, self.num_categories), -1)
        open_above = np.ones((num_users, self.num_categories), np.bool_)
        last = len(values) - 1
        for level, nodes in enumerate(ancestors):
            # Depth as the paper counts it: the root's children are at 2.
            depth = np.log(level + 2)
            taken, offered = clicks[level][:, nodes], offers[level][:, nodes]
            expanded = (taken >= self.method.visits * depth) & (
                taken >= self.method.reward * depth * np.maximum(offered, 1)
            )
            stops = open_above & (~expanded | (level == last))
            visible_value[stops] = values[level][:, nodes][stops]
            visible_level[stops] = level
            open_above &= expanded
        node = np.take_along_axis(np.stack(ancestors)[:, None, :], visible_level[None], axis=0)[0]
        leaf = values[-1]
        found = np.empty((num_users, self.num_categories), np.float32)
        for user in range(num_users):
            order = np.lexsort((-leaf[user], node[user], visible_level[user], -visible_value[user]))
            found[user, order] = -np.arange(self.num_categories)
        return found


def upper_bounds(
    vectors: list[NDArray[np.float64]],
    taken: list[NDArray[np.float64]],
    offered: list[NDArray[np.float64]],
    alpha: float,
) -> list[NDArray[np.float64]]:
    """Value nodes by one linear bandit a user over all the levels given: θᵀx + α √(xᵀA⁻¹x), [n, nodes] a level.

    vectors: [nodes, d]; taken, offered: [n, nodes], rewards of 1 and rounds on offer.
    """
    dim = vectors[0].shape[1]
    outer = np.concatenate([level[:, :, None] * level[:, None, :] for level in vectors])
    rounds = np.concatenate(offered, axis=1)
    inverse = np.linalg.inv(np.eye(dim) + np.tensordot(rounds, outer, axes=(1, 0)))
    weights = np.einsum("nij,nj->ni", inverse, sum(t @ level for t, level in zip(taken, vectors, strict=True)))
    return [
        weights @ level.T + alpha * np.sqrt(np.einsum("ki,nij,kj->nk", level, inverse, level, optimize=True))
        for level in vectors
    ]


def _path_order(values: list[NDArray[np.float64]], ancestors: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    num_users, num_leaves = values[0].shape
    found = np.empty((num_users, num_leaves), np.float32)
    for user in range(num_users):
        keys: list[NDArray[np.float64]] = []
        for value, nodes in zip(values, ancestors, strict=True):
            # Ties between nodes are broken by node, so that a node's leaves stay together.
            keys += [-value[user], nodes.astype(np.float64)]
        found[user, np.lexsort(keys[::-1])] = -np.arange(num_leaves)
    return found


def methods() -> tuple[Method, ...]:
    """Both rows."""
    return (HierarchicalBandit(progressive=False), HierarchicalBandit(progressive=True))
