"""How good towers are on held-out time: recall of the user's row alone (U2I)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.towers.dual_tower import DualTower
from serendipity.offline.towers.rows import Moment


@dataclass(frozen=True)
class Validation:
    """Held-out targets after the moment's time. moment: all users as of held_out.cut, ascending; subset: [n] users."""

    held_out: HeldOut
    moment: Moment
    node_vectors: NDArray[np.float32]
    all: Targets
    novel: Targets

    @classmethod
    def of(
        cls, held_out: HeldOut, moment: Moment, node_vectors: NDArray[np.float32], users: int, rng: np.random.Generator
    ) -> Validation:
        """Draw `users` of those with targets, or take all of them."""
        chosen = rng.permutation(held_out.targets.users)[:users]
        return cls(held_out, moment, node_vectors, held_out.targets.of_users(chosen), held_out.novel.of_users(chosen))

    def recall(self, towers: DualTower) -> dict[str, float]:
        """Mean recall by name: all@20, all@100, novel@20, novel@100."""
        users = np.union1d(self.all.users, self.novel.users)
        vectors = towers.user_vectors(self.moment, np.searchsorted(self.moment.users, users), self.node_vectors)[:, 0]
        items = towers.item_vectors(self.moment.items)[self.held_out.candidates].T
        found: dict[str, float] = {}
        for name, targets in (("all", self.all), ("novel", self.novel)):
            top = self.held_out.top_k(
                lambda some: vectors[np.searchsorted(users, some)] @ items, targets.users, 100, novel=name == "novel"
            )
            found |= {f"{name}@{k}": float(targets.recall(top, k).mean()) for k in (20, 100)}
        return found

    def score(self, towers: DualTower) -> float:
        """Score an epoch: geometric mean of novel recall@20, novel recall@100 and recall@100.

        The channel serves novel items and is judged at 20; the others steady it, since recall@20 of some thousand
        users moves by several per cent from epoch to epoch by chance.
        """
        found = self.recall(towers)
        return float(np.prod([found["novel@20"], found["novel@100"], found["all@100"]]) ** (1 / 3))
