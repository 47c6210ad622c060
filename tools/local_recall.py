"""The pipeline in this process, as the builders' replays and the canary ask it: as of its snapshot's moment."""

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
from serendipity.channel.local_tower import LocalTower
from serendipity.channel.settings import ChannelSettings
from serendipity.features import TowerInputs
from serendipity.offline.evaluate.replay import Recall

RECALL_CODE = ("serendipity.channel", "serendipity.tools.local_recall")
"""Modules whose source `open_recall` depends on."""


class AwayTower:
    """A user tower that is away, so that stored vectors answer."""

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:  # noqa: ARG002
        """Raise TowerUnavailable."""
        raise TowerUnavailable(f"{model_name}: left out, to learn what stored vectors are worth")

    async def close(self) -> None:
        """Nothing is open."""


@contextmanager
def open_recall(snapshot: Path, tower: Path | None) -> Iterator[Recall]:
    """Open the pipeline over a snapshot directory and an exported user tower; None: as if the tower were away.

    "Now" is the moment up to which the snapshot holds events. Raises SnapshotUnavailable, TowerUnavailable.
    """
    settings = ChannelSettings(clock="snapshot")
    if tower is not None:
        with LocalChannel(snapshot, LocalTower(tower), settings=settings) as channel:
            yield channel.recall
        return
    # The pipeline warns of a tower that is away at every request; here that is what is asked for.
    log = logging.getLogger("serendipity.channel.recall")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with LocalChannel(snapshot, AwayTower(), settings=settings) as channel:
            yield channel.recall
    finally:
        log.setLevel(level)
