"""How the merge model is learned, and what of unexpectedness may cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serendipity.offline.configuration import Configuration


class MergeConfig(Configuration):
    """The merge model (serendipity.offline.merge.model) and the replay that it is learned on: of the clicks after the
    towers' first training's labels (towers.rows.label_window of all)."""

    max_users: Annotated[int, Field(ge=100)] = 4_000
    """Users replayed at most, sampled among those with a click in the period."""
    count: Annotated[int, Field(ge=40, le=1000)] = 300
    """Candidates asked for per user."""
    trees: Annotated[int, Field(ge=1, le=1_000)] = 40
    """Boosted trees. Three times as many found no more on The Complete Journey."""
    leaves: Annotated[int, Field(ge=2, le=256)] = 8
    """Leaves of each."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.15
    """What each tree adds."""
    leaf_candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Candidates in a leaf at least."""
    min_positives: Annotated[int, Field(ge=1)] = 200
    """Candidates with an interaction below which there is no model: ranks of the sources are fused."""
    surprise_costs: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the novel recall that the default of `surprise` may cost on the replay."""
