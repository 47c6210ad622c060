"""The real pipeline opened on a build's files, for the builders: they may not import the channel themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serendipity.channel.local import LocalChannel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.evaluate.replay import Recall

CODE = ("serendipity.channel", "serendipity.features", "serendipity.novelty", "serendipity.rank_features")
"""Modules whose source decides what the pipeline recalls."""


@contextmanager
def open_pipeline(snapshot: Path, tower: Path) -> Iterator[Recall]:
    """Open the pipeline over a snapshot directory and an exported user tower.

    Its clock stands at the moment the snapshot was built as of.
    """
    # Of no environment: what is built and measured must not depend on it.
    settings = ChannelSettings.model_construct(clock="snapshot")
    with LocalChannel(snapshot, LocalTower(tower), settings=settings) as channel:
        yield channel.recall
