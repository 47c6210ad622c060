"""Sessions without a record: what is sent, what counts, and what two made-up channels get for it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.strangers import evaluate_strangers, session_of, session_targets
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld


@pytest.fixture(scope="module")
def histories(small_world: SmallWorld) -> Histories:
    return make_small_histories(small_world)


@pytest.fixture(scope="module")
def held_out(small_world: SmallWorld, histories: Histories) -> HeldOut:
    return HeldOut.between(histories, small_world.catalogue, NOW, UNTIL)


def test_sessions_are_sent_under_ids_nobody_has_and_targets_are_of_other_categories(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut
) -> None:
    sent: list[channel_pb2.RecallRequest] = []
    users = held_out.novel.users[:5]
    targets = session_targets(held_out, {user: session_of(histories, user, NOW) for user in users.tolist()})

    def recall(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        """Knows who it is, and tells only where the graph source is on."""
        sent.append(request)
        is_on = request.source_quotas[-1].min_count > 0
        user = int(request.user_id.split()[1])
        rows = targets.of_users(np.array([user])).rows if is_on else np.empty(0, np.int64)
        chosen = rows[: request.count].tolist()
        return channel_pb2.RecallResponse(
            item_ids=[small_world.item_ids[row] for row in chosen],
            scores=[1.0] * len(chosen),
            relevance=[1.0] * len(chosen),
            sources=[channel_pb2.SOURCE_GRAPH] * len(chosen),
        )

    found = evaluate_strangers(
        recall, histories, small_world.catalogue, held_out, users, (20, 60), np.random.default_rng(0)
    )
    assert found is not None
    assert (found.on[60], found.off[60], found.difference[60].value) == (1.0, 0.0, 1.0)
    assert len(sent) == 2 * found.users
    for request in sent:
        assert request.user_id not in histories.user_numbers
        assert not request.exclude_item_ids
        assert 1 <= len(request.recent_events) <= 3
        assert request.source_quotas[-1].source == channel_pb2.SOURCE_GRAPH
        clicked = {small_world.item_ids.index(event.item_id) for event in request.recent_events}
        categories = {int(small_world.catalogue.item_categories[row]) for row in clicked}
        user = int(request.user_id.split()[1])
        of_user = targets.of_users(np.array([user])).rows
        assert not categories & set(small_world.catalogue.item_categories[of_user].tolist())


def test_without_targets_nothing_is_asked(small_world: SmallWorld, histories: Histories, held_out: HeldOut) -> None:
    nobody = np.empty(0, np.int64)
    rng = np.random.default_rng(0)
    assert evaluate_strangers(pytest.fail, histories, small_world.catalogue, held_out, nobody, (20,), rng) is None
