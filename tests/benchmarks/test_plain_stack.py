"""The plain stack answers what the channel answers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import proto
from numpy.typing import NDArray

from benchmarks.plain_merge import GRAPH, GROUP, INTEREST
from benchmarks.plain_stack import AnswerLog, PlainStack
from benchmarks.stored import Stored
from serendipity import layout
from serendipity.features import TowerInputs
from serendipity.offline.towers.export import load_user_tower
from serendipity.v1 import channel_pb2, records_pb2
from tests.benchmarks.conftest import COUNT, Answers, answers_of
from tests.fixtures.small_world import SmallWorld


def test_its_candidates_scores_and_categories_are_the_channels(
    measured_world: SmallWorld, stored: Stored, channel_answers: Answers
) -> None:
    _assert_alike(measured_world, stored, channel_answers)


@pytest.mark.parametrize("unearned", [(INTEREST,), (GROUP,), (GRAPH,), (INTEREST, GROUP, GRAPH)])
def test_neither_searches_sources_that_have_not_earned_it_and_both_rank_by_them(
    measured_world: SmallWorld, channel_answers: Answers, unearned: tuple[channel_pb2.Source, ...], tmp_path: Path
) -> None:
    snapshot = tmp_path / measured_world.snapshot_dir.name
    shutil.copytree(measured_world.snapshot_dir, snapshot)
    manifest = layout.read_manifest(snapshot)
    manifest.merge.sources.extend(records_pb2.SourceWorth(source=source) for source in unearned)
    layout.write_manifest(snapshot, manifest)
    theirs = answers_of(measured_world, snapshot)
    assert {source for answer in theirs.values() for source in answer.sources} >= set(unearned)
    stored = Stored(snapshot)
    try:
        _assert_alike(measured_world, stored, theirs)
    finally:
        stored.close()


def _assert_alike(world: SmallWorld, stored: Stored, answers: Answers) -> None:
    tower = load_user_tower(world.tower_path.with_suffix(".pt2"))

    async def answer(inputs: TowerInputs) -> NDArray[np.float32]:
        return tower(inputs)

    stack = PlainStack(stored, answer)
    shared, alike = [], []
    for user, theirs in answers.items():
        ours = asyncio.run(stack.recall(channel_pb2.RecallRequest(user_id=user, count=COUNT)))
        assert len(ours.item_ids) == len(theirs.item_ids) == len(ours.scores) == len(ours.relevance)
        shared.append(len(set(ours.item_ids) & set(theirs.item_ids)) / len(theirs.item_ids))
        expected = {item: facts for item, *facts in _facts(theirs)}
        for item, score, relevance, source, category in _facts(ours):
            if item in expected:
                of_score, of_relevance, of_source, of_category = expected[item]
                assert category == of_category
                close = (score, relevance) == pytest.approx((of_score, of_relevance), abs=1e-5)
                alike.append(close and source == of_source)
    # Sums in another order may differ in the last bit, which may turn a tie.
    assert np.mean(shared) >= 0.99
    assert np.mean(alike) >= 0.99


def _facts(answer: channel_pb2.RecallResponse) -> Iterator[tuple[str, float, float, int, str]]:
    categories = [answer.categories[index] for index in answer.category_indexes]
    return zip(answer.item_ids, answer.scores, answer.relevance, answer.sources, categories, strict=True)


def test_every_answer_is_in_the_log_once_it_is_closed(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "answers.log")
    for user in ("a", "b"):
        log.append(user, channel_pb2.RecallResponse(recall_id=user * 3))
    log.close()
    with (tmp_path / "answers.log").open("rb") as file:
        found = [proto.parse_length_prefixed(records_pb2.ServingRecord, file) for _ in range(2)]  # type: ignore[arg-type]
        assert not file.read()
    assert [(record.user_id, record.response.recall_id) for record in found if record] == [("a", "aaa"), ("b", "bbb")]
