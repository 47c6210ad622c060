"""Given items are scored as an answer scores them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.exposures.channel_scores import channel_scores
from serendipity.channel.local import LocalChannel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.v1 import channel_pb2
from tests.fixtures.exposures_slice import log_of
from tests.fixtures.small_world import SmallWorld


@pytest.mark.parametrize("strict", [True, False])
def test_scores_are_those_of_an_answer_that_holds_everything(measured_world: SmallWorld, strict: bool) -> None:
    world = measured_world
    users = [*world.user_ids[:3], world.cold_user_id]
    item_ids = [*world.item_ids, "nobody's"]
    num_items = len(item_ids)
    log = log_of(np.repeat(np.arange(len(users)), num_items), rows=np.tile(np.arange(num_items), len(users)))
    found = channel_scores(world.snapshot_dir, world.tower_path, users, item_ids, log, strict=strict).scores
    settings = ChannelSettings.model_construct(clock="snapshot")
    policy = channel_pb2.NOVELTY_POLICY_STRICT if strict else channel_pb2.NOVELTY_POLICY_OFF
    with LocalChannel(world.snapshot_dir, LocalTower(world.tower_path), settings=settings) as channel:
        for user, scores in zip(users, found.reshape(len(users), num_items), strict=True):
            request = channel_pb2.RecallRequest(
                user_id=user, count=num_items, novelty_policy=policy, allow_repeats=True, surprise=0
            )
            answer = channel.recall(request)
            given = dict(zip(answer.item_ids, answer.scores, strict=True))
            assert len(given) > 100
            expected = [given.get(item_id, -np.inf) for item_id in item_ids]
            np.testing.assert_allclose(scores, expected, rtol=1e-6)
            assert scores[-1] == -np.inf
