"""The real pipeline opened on a build's files, for the builders: they may not import the channel themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerUnavailable
from serendipity.channel.local import LocalChannel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.channel.tower.tower import UserTower
from serendipity.features import TowerInputs
from serendipity.offline.evaluate.replay import Recall

CODE = ("serendipity.channel", "serendipity.features", "serendipity.novelty")
"""Modules whose source decides what the pipeline recalls."""


class AbsentTower:
    """No user tower, as when Triton is away: the pipeline falls back to the stored user vectors."""

    async def user_vectors(
        self,
        model_name: str,
        inputs: TowerInputs,  # noqa: ARG002
        deadline: Deadline,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Raise TowerUnavailable."""
        raise TowerUnavailable(f"{model_name}: this replay measures the fallback")

    async def close(self) -> None:
        """Do nothing: nothing is open."""


@contextmanager
def open_pipeline(snapshot: Path, tower: Path | None) -> Iterator[Recall]:
    """Open the pipeline over a snapshot directory and an exported user tower; None: as if the tower were away.

    Its clock stands at the moment the snapshot was built as of.
    """
    # Of no environment: what is built and measured must not depend on it.
    settings = ChannelSettings.model_construct(clock="snapshot")
    runner: UserTower = AbsentTower() if tower is None else LocalTower(tower)
    log = logging.getLogger("serendipity.channel.recall.recall")
    level = log.level
    if tower is None:
        # The pipeline warns at every request of a tower that is away; here that is what was asked for.
        log.setLevel(logging.ERROR)
    try:
        with LocalChannel(snapshot, runner, settings=settings) as channel:
            yield channel.recall
    finally:
        log.setLevel(level)
