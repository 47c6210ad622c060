"""What is learned from held-out time: through the real pipeline, and from made-up answers whose worth is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serendipity.channel.recall.query import SOURCES
from serendipity.layout import hash_of
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.replay import Recall
from serendipity.offline.logs.histories import Histories
from serendipity.offline.merge.builder import Merged, active_users, learn_merge, read_merge
from serendipity.offline.merge.config import MergeConfig
from serendipity.offline.merge.model import columns_read
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.rank_features import FEATURE_NAMES
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.grouped_world import make_grouped_world
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld

CONFIG = MergeConfig(count=60, min_positives=100, leaf_candidates=20)
USERS = 61


@pytest.fixture(scope="module")
def unmerged(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot with every source, and without a merge model."""
    world = make_grouped_world(small_world, tmp_path_factory.mktemp("grouped")).world
    contents = replace(world.contents, merge=records_pb2.MergeSpec(), merge_model=None)
    return write_snapshot(contents, tmp_path_factory.mktemp("unmerged"), created_at=NOW)


@pytest.fixture(scope="module")
def merged(small_world: SmallWorld, unmerged: Path) -> Merged:
    return learn(small_world, unmerged, CONFIG)


def learn(world: SmallWorld, snapshot: Path, config: MergeConfig) -> Merged:
    histories = make_small_histories(world)
    return learn_merge(open_pipeline, snapshot, world.tower_path, histories, world.catalogue, NOW, UNTIL, config=config)


def test_the_model_is_described_by_what_it_reads_and_was_learned_from(merged: Merged) -> None:
    spec, report = merged.spec, merged.report
    assert merged.model is not None
    assert spec.id == hash_of([merged.model])[:16]
    assert list(spec.features) == [FEATURE_NAMES[column] for column in columns_read(FEATURE_NAMES)]
    assert spec.horizon_days == 30
    assert report.users == USERS
    # Few have fewer than 60 candidates.
    assert USERS * 50 < spec.num_candidates <= USERS * 60
    assert (spec.num_candidates, spec.num_positives) == (report.candidates, report.positives)
    assert spec.num_positives >= 100


def test_scores_are_worth_what_they_say_and_lists_find_what_was_wanted(merged: Merged) -> None:
    report = merged.report
    assert report.reliability is not None
    assert report.fused is not None
    assert report.merged is not None
    assert report.reliability.mean_predicted == pytest.approx(report.reliability.base_rate, rel=0.1)
    assert report.reliability.expected_calibration_error < 0.02
    assert report.reliability.brier < report.reliability.brier_of_base_rate
    # By chance it would be 20 of 400, a twentieth.
    assert min(report.merged[0], report.fused[0]) > 0.2
    assert report.fused[1] >= report.fused[0]
    assert report.merged[1] >= report.merged[0]


@pytest.mark.parametrize("costs", [0.0, 0.03, 0.5, 0.99])
def test_the_dial_stands_where_most_is_felt_of_what_its_cost_allows(
    small_world: SmallWorld, unmerged: Path, costs: float
) -> None:
    merged = learn(small_world, unmerged, CONFIG.model_copy(update={"surprise_costs": costs}))
    curve = merged.report.curve
    worth = {point.surprise: float(np.sqrt(np.prod(point.recall))) for point in curve}
    assert list(worth) == [step / 20 for step in range(21)]
    affordable = [point for point in curve if worth[point.surprise] >= (1 - costs) * worth[0.0] * (1 - 1e-12)]
    most = max(float(np.prod(point.serendipity)) for point in affordable)
    assert any(
        point.surprise == merged.spec.surprise and np.prod(point.serendipity) == pytest.approx(most)
        for point in affordable
    )
    assert curve[0].recall == merged.report.merged
    felt = [point.unexpectedness for point in curve]
    assert felt == sorted(felt)
    assert felt[-1] > felt[0]


def test_the_same_logs_teach_the_same(small_world: SmallWorld, unmerged: Path, merged: Merged) -> None:
    again = learn(small_world, unmerged, CONFIG)
    assert (again.spec, again.model, again.report) == (merged.spec, merged.model, merged.report)


def test_too_few_positives_teach_no_model(small_world: SmallWorld, unmerged: Path, merged: Merged) -> None:
    least = merged.spec.num_positives
    assert learn(small_world, unmerged, CONFIG.model_copy(update={"min_positives": least})).model is not None
    few = learn(small_world, unmerged, CONFIG.model_copy(update={"min_positives": least + 1}))
    assert few.model is None
    assert few.spec == records_pb2.MergeSpec(
        horizon_days=30, num_candidates=merged.spec.num_candidates, num_positives=least, popularity=0.5
    )
    assert few.report == replace(merged.report, reliability=None, merged=None, curve=())


@pytest.mark.parametrize("min_positives", [100, 100_000])
def test_what_was_written_is_read_back(
    small_world: SmallWorld, unmerged: Path, tmp_path: Path, min_positives: int
) -> None:
    merged = learn(small_world, unmerged, CONFIG.model_copy(update={"min_positives": min_positives}))
    merged.write(tmp_path)
    assert read_merge(tmp_path) == (merged.spec, merged.model)
    assert (tmp_path / "merge.onnx").exists() == (merged.model is not None)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["fused"] == list(merged.report.fused or ())
    assert len(report["curve"]) == len(merged.report.curve)


def test_the_learned_model_serves(small_world: SmallWorld, unmerged: Path, merged: Merged, tmp_path: Path) -> None:
    contents = replace(small_world.contents, merge=merged.spec, merge_model=merged.model)
    snapshot = write_snapshot(contents, tmp_path, created_at=NOW)
    with open_pipeline(snapshot, small_world.tower_path) as recall:
        response = recall(channel_pb2.RecallRequest(user_id=small_world.user_ids[0], count=20, surprise=0.0))
    assert response.versions.merge == merged.spec.id
    assert list(response.scores) == sorted(response.scores, reverse=True)


class Pretender:
    """A channel of which it is known what its sources are worth: interest leads to what will be clicked, group to what
    nobody wants, collaborative to the rest."""

    def __init__(self, world: SmallWorld, histories: Histories) -> None:
        self.world, self.histories = world, histories
        self.held_out = HeldOut.between(histories, world.catalogue, NOW, UNTIL)
        self.asked: list[channel_pb2.RecallRequest] = []

    @contextmanager
    def open(self, snapshot: Path, tower: Path) -> Iterator[Recall]:
        yield self

    def __call__(self, request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        self.asked.append(request)
        user = self.histories.user_numbers[request.user_id]
        later = self.histories.times >= NOW
        wanted = np.unique(self.histories.items[later & (self.histories.users == user)] - 1)
        is_new = ~self.held_out.clicked[user][self.held_out.item_categories]
        if request.novelty_policy == channel_pb2.NOVELTY_POLICY_STRICT:
            wanted = wanted[is_new[wanted]]
        others = np.setdiff1d(np.flatnonzero(is_new), wanted)[: request.count - len(wanted)]
        rows = [*wanted.tolist(), *others.tolist()]
        sources = [channel_pb2.SOURCE_INTEREST] * len(wanted)
        sources += [(channel_pb2.SOURCE_GROUP, channel_pb2.SOURCE_COLLABORATIVE)[i % 2] for i in range(len(others))]
        features = np.zeros((len(rows), len(FEATURE_NAMES)), np.float32)
        features[:, FEATURE_NAMES.index("unexpectedness")] = np.linspace(0, 1, len(rows))
        ranks = [FEATURE_NAMES.index(f"{name}_reciprocal_rank") for name in ("interest", "collaborative", "group")]
        for i, source in enumerate(sources):
            features[i, ranks[SOURCES.index(source)]] = 1 / (1 + i)
        k = len(rows)
        return channel_pb2.RecallResponse(
            item_ids=[self.world.item_ids[row] for row in rows],
            scores=[1 / (1 + i) for i in range(k)],
            relevance=[0.5] * k,
            unexpectedness=[0.5] * k,
            sources=sources,
            rank_features=channel_pb2.FeatureMatrix(names=FEATURE_NAMES, num_rows=k, values=features.ravel().tolist()),
            versions=channel_pb2.Versions(user_tower="user_tower_0"),
        )


def pretend(world: SmallWorld, histories: Histories, **changes: object) -> tuple[Pretender, Merged]:
    pretender = Pretender(world, histories)
    config = CONFIG.model_copy(update=changes)
    nowhere = Path("nowhere")
    merged = learn_merge(pretender.open, nowhere, nowhere, histories, world.catalogue, NOW, UNTIL, config=config)
    return pretender, merged


def test_a_source_has_earned_its_places_where_popularity_would_find_less(small_world: SmallWorld) -> None:
    pretender, merged = pretend(small_world, make_small_histories(small_world))
    worths = {worth.source: worth for worth in merged.spec.sources}
    assert set(worths) == set(SOURCES) - {channel_pb2.SOURCE_COLLABORATIVE}
    novel = pretender.held_out.novel
    interest, group, graph = (
        worths[source] for source in (channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_GROUP, channel_pb2.SOURCE_GRAPH)
    )
    assert interest.earned
    assert interest.places == interest.hits == pytest.approx(len(novel.rows) / len(novel.users))
    assert interest.low <= interest.hits - interest.popularity_hits <= interest.high
    assert interest.low > 0
    assert not group.earned
    assert group.places > 20
    assert group.hits == 0
    assert group.low <= group.high <= 0
    assert not graph.earned
    assert (graph.places, graph.hits, graph.popularity_hits, graph.low, graph.high) == (0, 0, 0, 0, 0)


def test_everybody_is_asked_for_novel_items_by_relevance_alone(
    small_world: SmallWorld,
) -> None:
    histories = make_small_histories(small_world)
    pretender, _ = pretend(small_world, histories)
    assert [request.user_id for request in pretender.asked] == histories.user_ids
    for request in pretender.asked:
        assert request.novelty_policy == channel_pb2.NOVELTY_POLICY_STRICT
        assert request.HasField("surprise")
        assert (request.surprise, request.count) == (0, 60)
        user = histories.user_numbers[request.user_id]
        own = histories.items[(histories.users == user) & (histories.times < NOW)]
        assert set(request.exclude_item_ids) == {small_world.item_ids[item - 1] for item in own}


def test_where_nobody_clicked_anything_novel_the_list_is_not_judged(small_world: SmallWorld) -> None:
    _, merged = pretend(small_world, make_small_histories(small_world, wanted=0, usual=10), min_positives=20)
    assert merged.model is None
    assert (merged.report.fused, merged.report.merged, merged.report.curve) == (None, None, ())
    assert merged.spec.surprise == 0
    assert not merged.spec.sources


def test_answers_that_hold_nothing_teach_nothing(small_world: SmallWorld) -> None:
    _, merged = pretend(small_world, make_small_histories(small_world, wanted=0, usual=0))
    assert (merged.model, merged.report.users, merged.report.candidates) == (None, 0, 0)


def test_only_users_who_are_there_are_asked_and_a_sample_is_the_same_each_time(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world)
    assert len(active_users(histories, NOW, UNTIL, 1000, 0)) == USERS
    assert len(active_users(histories, UNTIL, UNTIL + 1, 1000, 0)) == 0
    some = active_users(histories, NOW, UNTIL, 10, 0)
    assert len(some) == 10
    assert np.array_equal(some, active_users(histories, NOW, UNTIL, 10, 0))
    assert not np.array_equal(some, active_users(histories, NOW, UNTIL, 10, 1))
