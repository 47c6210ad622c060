"""Every method's figures side by side, whoever made the lists: controls, the channel, its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.measures import Judge, PerUser
from serendipity.offline.evaluate.significance import Estimate, bootstrap_ratio

Kind = Literal["control", "channel", "source", "exchange"]


@dataclass(frozen=True)
class RankedLists:
    """What one method with one seed answered the users of a judge: item rows, best first, −1 for none.

    novel: [users, K], of novel categories. exclusive: [users, K], the same with the host's own items excluded; None
    where that was not asked. seed: None where no seed changes the method.
    """

    name: str
    kind: Kind
    seed: int | None
    novel: NDArray[np.int64]
    exclusive: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class MethodResult:
    """One method over its seeds. per_user: (measure, K) → [seeds, users], NaN for a user without such a target."""

    name: str
    kind: Kind
    seeds: tuple[int | None, ...]
    per_user: PerUser

    def mean(self, measure: str, k: int) -> float:
        """Mean over users and seeds; NaN where nobody has such a target, or it was not measured."""
        return float(np.mean(self.by_seed(measure, k)))

    def by_seed(self, measure: str, k: int) -> NDArray[np.float64]:
        """Mean over users of every seed: [seeds]."""
        values = self.per_user.get((measure, k))
        if values is None or np.isnan(values).all():
            return np.full(len(self.seeds), np.nan)
        means: NDArray[np.float64] = np.nanmean(values, axis=1)
        return means

    def ratio_to(
        self, other: MethodResult, measure: str, k: int, rng: np.random.Generator, samples: int
    ) -> Estimate | None:
        """Mean of this method over another's, paired by user; None where one was not measured or the other is 0."""
        ours, theirs = self.per_user.get((measure, k)), other.per_user.get((measure, k))
        if ours is None or theirs is None:
            return None
        judged = ~np.isnan(ours[0])
        if not judged.any() or not theirs[:, judged].any():
            return None
        return bootstrap_ratio(ours[:, judged].mean(axis=0), theirs[:, judged].mean(axis=0), rng, samples=samples)


def measure_methods(lists: Sequence[RankedLists], judge: Judge, depths: Sequence[int]) -> tuple[MethodResult, ...]:
    """Measure all lists, those of one name together, in the order of their first ones."""
    results = []
    for name in dict.fromkeys(one.name for one in lists):
        runs = [one for one in lists if one.name == name]
        measured = []
        for run in runs:
            found = dict(judge.recalls(run.novel, depths))
            if run.exclusive is not None:
                found |= judge.exclusive(run.exclusive, depths)
            measured.append(found)
        per_user = {key: np.stack([found[key] for found in measured]) for key in measured[0]}
        results.append(MethodResult(name, runs[0].kind, tuple(run.seed for run in runs), per_user))
    return tuple(results)
