"""A small world for the closed loop: users of two groups who like different categories, and LLMs of a few weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.coevolution.config import CoevolutionConfig, ExamplesConfig
from serendipity.offline.coevolution.pco_config import DpoConfig, PcoConfig
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.tuning.config import TinyLmConfig, TuningConfig

CATEGORIES = ["Apples", "Bread", "Cheese", "Dates", "Eggs", "Figs", "Grapes", "Honey"]


def histories(users: int = 60, clicks: int = 24) -> Histories:
    """Users of even number click mostly in the first half of the categories, others in the second."""
    generator = np.random.default_rng(8)
    numbers = np.concatenate(
        [
            np.where(
                generator.random(clicks) < 0.85, generator.integers(1, 5, clicks), generator.integers(5, 9, clicks)
            )
            if user % 2 == 0
            else generator.integers(5, 9, clicks)
            for user in range(users)
        ]
    )
    return Histories(
        user_ids=[f"u{user:03}" for user in range(users)],
        profiles=[{} for _ in range(users)],
        offsets=np.arange(users + 1, dtype=np.int64) * clicks,
        items=numbers.astype(np.int64),
        categories=numbers.astype(np.int32),
        times=np.tile(np.arange(clicks, dtype=np.int64) * 60, users) + 1_700_000_000,
        search_offsets=np.zeros(users + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def catalogue() -> Catalogue:
    """An item of each category."""
    n = len(CATEGORIES)
    return Catalogue(
        [f"i{number}" for number in range(n)], list(CATEGORIES), [(name,) for name in CATEGORIES], [""] * n, [()] * n,
        np.ones(n, np.bool_), np.full(n, np.nan, np.float32), list(CATEGORIES), np.arange(1, n + 1, dtype=np.int32),
        np.arange(n + 1, dtype=np.int64), 0,
    )  # fmt: skip


@dataclass(frozen=True)
class TwoGroups:
    """Group 1 or 2 by the user's number, from the fourth click on."""

    profiles: Sequence[str] = ("Everybody", "Fresh food", "Sweet things")

    def click_groups(self, found: Histories) -> NDArray[np.int32]:
        """Tell the group before each click."""
        place = np.arange(len(found.items)) - found.offsets[found.users]
        return np.where(place >= 4, found.users % 2 + 1, 0).astype(np.int32)


def config(cycles: int = 2, **dpo: float) -> CoevolutionConfig:
    """LLMs that are tuned in a second."""
    tuning = TuningConfig(batch_size=32, epochs=1, learning_rate=3e-3, max_tokens=256)
    return CoevolutionConfig(
        tiny=TinyLmConfig(
            hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, merges=50, max_positions=256
        ),
        examples=ExamplesConfig(max_novelty=200, max_relevance=200, min_clicks=2, validation_share=0.3),
        novelty=tuning,
        relevance=tuning,
        num_candidates=5,
        keep_clicked=0.8,
        pco=PcoConfig(
            cycles=cycles,
            sample_share=0.05,
            max_records=40,
            dpo=DpoConfig(learning_rate=1e-3, **dpo),
        ),
    )
