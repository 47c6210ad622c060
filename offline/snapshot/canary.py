"""The canary: some users asked of a snapshot before anyone is served from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from serendipity.novelty import clicked_categories, is_novel
from serendipity.offline.configuration import Configuration
from serendipity.offline.evaluate.replay import Advance, Recall, Replay, ReplayRequests, replay
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

_SEED = 20_240_601
"""Seed of the sample of users."""

DECILES = tuple(range(10, 100, 10))
"""Percentiles of the scores that are kept."""


class CanaryConfig(Configuration):
    """Who is asked of a new snapshot, and for how much."""

    num_users: Annotated[int, Field(ge=1)] = 500
    """Users asked at most, sampled among all."""
    count: Annotated[int, Field(ge=1, le=1000)] = 100
    """Candidates asked for."""


@dataclass(frozen=True)
class Canary:
    """What a snapshot answered to the canary's users under STRICT.

    fill: mean share of the candidates asked for that came; empty: answers without any; coverage: share of the available
    items in anyone's answer; violations: candidates that are not novel; degraded: degraded answers; score_deciles: [9]
    of all candidates' scores; novel_recall: of a replay of held-out time by the same build, None if none was
    made.
    """

    users: int
    fill: float
    empty: int
    coverage: float
    violations: int
    degraded: int
    score_deciles: tuple[float, ...]
    novel_recall: float | None = None

    def to_quality(self) -> dict[str, float]:
        """Lay out as the manifest's `quality`."""
        quality = {
            "canary_users": float(self.users),
            "fill": self.fill,
            "empty": float(self.empty),
            "coverage": self.coverage,
            "violations": float(self.violations),
            "degraded": float(self.degraded),
            **{f"score_p{p}": score for p, score in zip(DECILES, self.score_deciles, strict=False)},
        }
        if self.novel_recall is not None:
            quality["novel_recall"] = self.novel_recall
        return quality

    @classmethod
    def from_quality(cls, quality: Mapping[str, float]) -> Canary | None:
        """Read the manifest's `quality`; None when the snapshot was never measured."""
        if "canary_users" not in quality:
            return None
        return cls(
            users=int(quality["canary_users"]),
            fill=quality["fill"],
            empty=int(quality["empty"]),
            coverage=quality["coverage"],
            violations=int(quality["violations"]),
            degraded=int(quality["degraded"]),
            score_deciles=tuple(quality[f"score_p{p}"] for p in DECILES if f"score_p{p}" in quality),
            novel_recall=quality.get("novel_recall"),
        )


def ask_canary(
    recall: Recall,
    histories: Histories,
    catalogue: Catalogue,
    now: int,
    config: CanaryConfig | None = None,
    *,
    novel_recall: float | None = None,
    advance: Advance = lambda _: None,
) -> Canary:
    """Ask the snapshot behind `recall` for a sample of users and measure the answers.

    now: Unix seconds; clicks before it are in the snapshot. novel_recall: as measured on held-out time.
    """
    config = config or CanaryConfig()
    users = np.arange(len(histories), dtype=np.int64)
    if len(users) > config.num_users:
        users = np.sort(np.random.default_rng(_SEED).choice(users, config.num_users, replace=False))
    requests = ReplayRequests(count=config.count, exclude_own=False)
    answers = replay(recall, histories, catalogue, users, now, requests, advance=advance)
    shown = answers.rows[answers.rows >= 0]
    available = int(catalogue.available.sum())
    return Canary(
        users=len(users),
        fill=float(answers.returned.mean() / config.count) if len(users) else 0.0,
        empty=int((answers.returned == 0).sum()),
        coverage=len(np.unique(shown)) / available if available else 0.0,
        violations=_violations(answers, histories, catalogue, now),
        degraded=int(answers.degraded.sum()),
        score_deciles=tuple(np.percentile(answers.scores[answers.rows >= 0], DECILES).tolist()) if len(shown) else (),
        novel_recall=novel_recall,
    )


def _violations(answers: Replay, histories: Histories, catalogue: Catalogue, now: int) -> int:
    violations = 0
    for user, rows in zip(answers.users.tolist(), answers.rows, strict=True):
        clicked = clicked_categories(histories.clicks_before(user, now), len(catalogue.categories))
        categories: NDArray[np.int32] = catalogue.item_categories[rows[rows >= 0]]
        violations += int((~is_novel(categories, clicked)).sum())
    return violations
