"""Cold items are ranked among themselves, and what places given to them cost is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cold_items import ANSWER, POPULARITY, choose_exponent, cold_of, cold_places, judge, judge_places
from serendipity.offline.evaluate.click_statistics import ClickStatistics
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.v1 import channel_pb2
from tests.fixtures.small_histories import UNTIL as LATER
from tests.fixtures.small_histories import make_small_histories
from tests.fixtures.small_world import DAY, NOW, SmallWorld


@pytest.fixture
def held_out(small_world: SmallWorld) -> HeldOut:
    return HeldOut.between(make_small_histories(small_world, explorers=12), small_world.catalogue, NOW, LATER)


@pytest.fixture
def statistics(small_world: SmallWorld, held_out: HeldOut) -> ClickStatistics:
    """As if every third item had been first clicked a week ago, and the others long before."""
    counted = ClickStatistics.of(make_small_histories(small_world, explorers=12), held_out)
    first = np.full(len(counted.first_clicks), NOW - 100 * DAY)
    first[::3] = NOW - 7 * DAY
    return replace(counted, first_clicks=first)


def test_candidates_and_targets_are_the_cold_items_alone(held_out: HeldOut, statistics: ClickStatistics) -> None:
    cold = cold_of(held_out, statistics)
    assert set(cold.candidates.tolist()) == {row for row in held_out.candidates.tolist() if row % 3 == 0}
    assert set(cold.novel.rows.tolist()) == {row for row in held_out.novel.rows.tolist() if row % 3 == 0}
    owners = held_out.novel.users[held_out.novel.owners[held_out.novel.rows % 3 == 0]]
    assert cold.novel.users.tolist() == sorted(set(owners.tolist()))
    ranked = cold.top_k(
        lambda some: np.ones((len(some), len(cold.candidates)), np.float32), cold.novel.users, 9, novel=True
    )
    assert (ranked[ranked >= 0] % 3 == 0).all()


def test_of_an_answer_the_first_cold_items_are_kept_and_every_asked_source_searches(
    small_world: SmallWorld, held_out: HeldOut, statistics: ClickStatistics
) -> None:
    cold = cold_of(held_out, statistics)
    warm = next(row for row in held_out.candidates.tolist() if row % 3)
    asked: list[channel_pb2.RecallRequest] = []

    def recall(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        asked.append(request)
        rows = [warm, *cold.candidates[[4, 1, 2]].tolist()]
        ids = [small_world.catalogue.item_ids[row] for row in rows]
        return channel_pb2.RecallResponse(
            item_ids=ids, scores=[0.1] * 4, relevance=[0.1] * 4, sources=["SOURCE_GRAPH"] * 4
        )

    histories = make_small_histories(small_world, explorers=12)
    sources = frozenset({channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_GRAPH})
    kept = cold_places(recall, histories, small_world.catalogue, cold, cold.novel.users[:1], sources, depth=4)
    assert kept.tolist() == [[*cold.candidates[[4, 1, 2]].tolist(), -1]]
    quotas = {quota.source: quota.max_count for quota in asked[0].source_quotas}
    assert {source for source, most in quotas.items() if most} == sources
    assert len(quotas) == 4


def test_a_page_tells_recall_and_its_difference_to_popularity(held_out: HeldOut, statistics: ClickStatistics) -> None:
    targets = cold_of(held_out, statistics).novel
    nothing = np.full((len(targets), 20), -1)
    everything = nothing.copy()
    for place in range(len(targets)):
        own = targets.rows[targets.offsets[place] : targets.offsets[place + 1]][:20]
        everything[place, : len(own)] = own
    page = judge({POPULARITY: nothing, "all": everything}, targets, np.random.default_rng(0))
    assert "| all |" in page
    assert "| 1.0000 | +1.0000 (+1.0000 to +1.0000) |" in page


def test_places_given_away_count_by_the_targets_of_everybody() -> None:
    everybody = Targets.from_pairs(np.array([0, 1]), np.array([5, 900]))
    answers = np.tile(np.arange(ANSWER), (2, 1))
    lists = np.full((2, 20), 900)
    page = judge_places(
        answers, {"theirs": lists}, everybody, everybody.of_users(np.array([1])), np.random.default_rng(0)
    )
    assert "| nobody |  | 0.5000 |  | 0.0000 |" in page
    assert page.count("| 1.0000 | +0.5000 (+0.0000 to +1.0000) | 1.0000 |") == 3


def test_the_exponent_is_one_of_those_that_are_tried(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world, explorers=12)
    assert choose_exponent(histories, small_world.catalogue, NOW, LATER) in (0.25, 0.5, 0.75, 1.0, 1.5)
