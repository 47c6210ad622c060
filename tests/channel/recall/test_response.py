from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serendipity.channel.deadline import Deadline
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.query import Source, parse_query
from serendipity.channel.recall.recalled import Recalled
from serendipity.channel.recall.response import to_response
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import NOW, SmallWorld


@pytest.fixture(scope="module")
def recalled(small_world: SmallWorld, local_channel: LocalChannel) -> Recalled:
    request = pb.RecallRequest(user_id="nobody", count=12, deny_categories=["no such category"])
    work = local_channel.channel.recall(parse_query(request, NOW), Deadline.after(60))
    return local_channel._loop.run_until_complete(work)


def test_every_column_goes_over_the_wire(recalled: Recalled) -> None:
    response = pb.RecallResponse.FromString(to_response(recalled, explain=True).SerializeToString())
    assert tuple(response.item_ids) == recalled.item_ids
    np.testing.assert_array_equal(np.array(response.scores, np.float32), recalled.scores)
    np.testing.assert_array_equal(np.array(response.sources), recalled.sources)
    np.testing.assert_array_equal(np.array(response.relevance, np.float32), recalled.relevance)
    np.testing.assert_array_equal(np.array(response.unexpectedness, np.float32), recalled.unexpectedness)
    assert list(response.category_indexes) == recalled.category_indexes.tolist()
    assert tuple(response.categories) == recalled.categories
    assert list(response.reason_indexes) == recalled.reason_indexes.tolist()
    assert list(response.all_reason_indexes) == recalled.all_reason_indexes.tolist()
    assert list(response.all_reason_offsets) == recalled.all_reason_offsets.tolist()
    assert [reason.text for reason in response.reasons] == [reason.text for reason in recalled.reasons]
    matrix = np.array(response.rank_features.values, np.float32)
    assert response.rank_features.num_rows == 12
    np.testing.assert_array_equal(
        matrix.reshape(response.rank_features.num_rows, len(response.rank_features.names)), recalled.features
    )
    assert [warning.code for warning in response.warnings] == [
        pb.WARNING_CODE_UNKNOWN_CATEGORY,
        pb.WARNING_CODE_COLD_USER,
    ]
    assert [status.source for status in response.source_statuses] == list(Source)
    assert [count.filter for count in response.filter_counts] == [o.name for o in recalled.filter_outcomes]
    assert response.versions.snapshot == recalled.versions.snapshot
    assert response.versions.events_until.seconds == NOW - 1
    assert response.recall_id == recalled.recall_id
    assert not response.degraded


def test_reasons_are_sent_only_when_asked_for(recalled: Recalled) -> None:
    response = to_response(recalled, explain=False)
    assert len(response.item_ids) == 12
    for name in ("reasons", "reason_indexes", "all_reason_indexes", "all_reason_offsets"):
        assert not getattr(response, name)


def test_times_and_degradation_are_sent(recalled: Recalled) -> None:
    times = replace(recalled.times, total=1.25, hydrate=0.0005)
    response = to_response(replace(recalled, times=times, degraded_reasons=("the tower",)), explain=False)
    assert (response.timings.total.seconds, response.timings.total.nanos) == (1, 250_000_000)
    assert response.timings.hydrate.nanos == 500_000
    assert response.degraded
    assert list(response.degraded_reasons) == ["the tower"]
