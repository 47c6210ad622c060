"""The plain stack answers what the channel answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import proto
from numpy.typing import NDArray

from benchmarks.plain_stack import COLLABORATIVE, AnswerLog, PlainStack, _select
from benchmarks.stored import Stored
from serendipity.features import TowerInputs
from serendipity.offline.towers.export import load_user_tower
from serendipity.v1 import channel_pb2, records_pb2
from tests.benchmarks.conftest import COUNT
from tests.fixtures.small_world import SmallWorld


@pytest.fixture
def stack(measured_world: SmallWorld, stored: Stored) -> PlainStack:
    tower = load_user_tower(measured_world.tower_path.with_suffix(".pt2"))

    async def answer(inputs: TowerInputs) -> NDArray[np.float32]:
        return tower(inputs)

    return PlainStack(stored, answer)


async def test_its_candidates_scores_and_categories_are_the_channels(
    stack: PlainStack, channel_answers: dict[str, channel_pb2.RecallResponse]
) -> None:
    shared, alike = [], []
    for user, theirs in channel_answers.items():
        ours = await stack.recall(channel_pb2.RecallRequest(user_id=user, count=COUNT))
        assert len(ours.item_ids) == len(theirs.item_ids) == len(ours.scores) == len(ours.relevance)
        shared.append(len(set(ours.item_ids) & set(theirs.item_ids)) / len(theirs.item_ids))
        scores = dict(zip(theirs.item_ids, theirs.scores, strict=True))
        categories = {
            item: theirs.categories[index] for item, index in zip(theirs.item_ids, theirs.category_indexes, strict=True)
        }
        for item, score, index in zip(ours.item_ids, ours.scores, ours.category_indexes, strict=True):
            if item in scores:
                # The channel looks at a pool: a source may find an item here and not there.
                alike.append(score == pytest.approx(scores[item], abs=1e-5))
                assert ours.categories[index] == categories[item]
    assert np.mean(shared) >= 0.95
    assert np.mean(alike) >= 0.97


def test_the_least_of_each_kind_goes_before_the_score_and_the_cap_before_what_is_left() -> None:
    # Best first: thirty of interests, all of one category, then ten of U2I.
    sources = np.array([channel_pb2.SOURCE_INTEREST] * 30 + [COLLABORATIVE] * 10)
    # Six of each category by the cap, five of U2I among them; then the best of those that are left.
    assert _select(sources, [1] * 30 + [2] * 10, 20) == [*range(14), *range(30, 36)]
    # Three of category 1 by the cap, and all others are of other categories.
    assert _select(sources, [1] * 30 + list(range(2, 12)), 10) == [0, 1, 2, *range(30, 37)]


def test_every_answer_is_in_the_log_once_it_is_closed(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "answers.log")
    for user in ("a", "b"):
        log.append(user, channel_pb2.RecallResponse(recall_id=user * 3))
    log.close()
    with (tmp_path / "answers.log").open("rb") as file:
        found = [proto.parse_length_prefixed(records_pb2.ServingRecord, file) for _ in range(2)]  # type: ignore[arg-type]
        assert not file.read()
    assert [(record.user_id, record.response.recall_id) for record in found if record] == [("a", "aaa"), ("b", "bbb")]
