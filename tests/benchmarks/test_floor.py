"""The floor answers nearly what the channel answers, and never what may not be shown."""

from __future__ import annotations

import numpy as np

from benchmarks.floor import Floor
from benchmarks.stored import Stored
from serendipity.offline.towers.export import load_user_tower
from serendipity.v1 import channel_pb2
from tests.benchmarks.conftest import COUNT
from tests.fixtures.small_world import SmallWorld


def test_its_answers_are_novel_available_and_mostly_the_channels(
    measured_world: SmallWorld, stored: Stored, channel_answers: dict[str, channel_pb2.RecallResponse]
) -> None:
    tower = load_user_tower(measured_world.tower_path.with_suffix(".pt2"))
    floor = Floor(stored, lambda inputs: tower(inputs)[0])
    row_of = {item: row for row, item in enumerate(stored.item_ids)}
    shared = []
    for user, theirs in channel_answers.items():
        ours = floor.recall(user, COUNT)
        rows = [row_of[item] for item in ours]
        assert len(set(rows)) == len(rows) == COUNT
        assert stored.available[rows].all()
        assert stored.user(user).allowed[stored.item_categories[rows]].all()
        shared.append(len(set(ours) & set(theirs.item_ids)) / COUNT)
    assert np.mean(shared) > 0.6
