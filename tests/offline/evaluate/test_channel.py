"""The channel's evaluation: the real pipeline over a small world, and made-up channels whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.channel.local import LocalChannel
from serendipity.channel.local_tower import LocalTower
from serendipity.novelty import clicked_categories
from serendipity.offline.evaluate.channel import (
    BaselineLists,
    ChannelEvaluationConfig,
    cold_targets,
    evaluate_channel,
    rolling_novel_targets,
)
from serendipity.offline.evaluate.channel_report import ChannelReport, to_json, to_markdown, write_report
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.replay import Recall, ReplayError, ReplayRequests, outcomes, replay
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2
from tests.fixtures.grouped_world import make_grouped_world
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld

CONFIG = ChannelEvaluationConfig(depths=(5, 20), bootstrap_samples=200)
DEEP = ChannelEvaluationConfig(depths=(60,), bootstrap_samples=200)


@pytest.fixture(scope="module")
def histories(small_world: SmallWorld) -> Histories:
    return make_small_histories(small_world)


@pytest.fixture(scope="module")
def held_out(small_world: SmallWorld, histories: Histories) -> HeldOut:
    return HeldOut.between(histories, small_world.catalogue, NOW, UNTIL)


@pytest.fixture(scope="module")
def channel(small_world: SmallWorld) -> Iterator[LocalChannel]:
    with LocalChannel(small_world.snapshot_dir, LocalTower(small_world.tower_path), clock=lambda: NOW) as local:
        yield local


class Oracle:
    """Knows what users will click: answers with their novel targets, then with other novel items of the catalogue."""

    def __init__(self, world: SmallWorld, histories: Histories, held_out: HeldOut, *, blind: bool = False) -> None:
        self.world, self.histories, self.held_out, self.blind = world, histories, held_out, blind

    def __call__(self, request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        user = self.histories.user_numbers[request.user_id]
        novel = self.held_out.novel
        place = np.flatnonzero(novel.users == user)
        wanted = novel.rows[novel.offsets[place[0]] : novel.offsets[place[0] + 1]].tolist() if len(place) else []
        is_new = ~self.held_out.clicked[user][self.world.catalogue.item_categories]
        others = [row for row in np.flatnonzero(is_new).tolist() if row not in wanted]
        chosen = (others if self.blind else wanted + others)[: request.count]
        return _response([self.world.item_ids[row] for row in chosen], [float(row in wanted) for row in chosen])


def _response(item_ids: list[str], scores: list[float]) -> channel_pb2.RecallResponse:
    k = len(item_ids)
    response = channel_pb2.RecallResponse(
        item_ids=item_ids,
        scores=scores,
        relevance=scores,
        unexpectedness=[0.5] * k,
        sources=[channel_pb2.SOURCE_INTEREST] * k,
    )
    response.rank_features.names.extend(["interest_reciprocal_rank", "collaborative_reciprocal_rank"])
    response.rank_features.num_rows = k
    response.rank_features.values.extend(value for i in range(k) for value in (1.0, float(i % 2)))
    response.source_statuses.add(
        source=channel_pb2.SOURCE_INTEREST, state=channel_pb2.SOURCE_STATE_OK, requested=20, found=k, returned=k
    )
    response.filter_counts.add(filter="novelty", kept=k, removed=2)
    response.versions.user_tower = "user_tower_0"
    return response


@pytest.fixture
def evaluate(small_world: SmallWorld, histories: Histories, held_out: HeldOut) -> _Evaluate:
    def run(
        recall: Recall,
        config: ChannelEvaluationConfig = CONFIG,
        baselines: dict[str, BaselineLists] | None = None,
    ) -> ChannelReport:
        return evaluate_channel(
            recall,
            histories,
            small_world.catalogue,
            held_out,
            dataset="small-world",
            config=config,
            baselines=baselines,
        )

    return run


class _Evaluate:
    """The type of `evaluate`."""

    def __call__(
        self,
        recall: Recall,
        config: ChannelEvaluationConfig = CONFIG,
        baselines: dict[str, BaselineLists] | None = None,
    ) -> ChannelReport: ...


def test_the_real_pipeline_recalls_what_was_planted(
    small_world: SmallWorld, held_out: HeldOut, channel: LocalChannel, evaluate: _Evaluate
) -> None:
    shuffled = np.random.default_rng(0).permutation(small_world.catalogue.category_offsets[-1])[:20]
    anything = BaselineLists(
        all=np.tile(shuffled, (len(held_out.targets), 1)), novel=np.tile(shuffled, (len(held_out.novel), 1))
    )
    report = evaluate(channel.recall, baselines={"anything": anything})
    assert report.users == len(small_world.user_ids)
    assert report.snapshots == (small_world.version,)
    assert (report.violations, report.novelty_rate) == (0, 1.0)
    assert report.fill == 1.0
    assert report.degraded_answers == 0
    assert report.novel.recall[20] > 2 * report.baselines["anything"].novel.recall[20]
    assert report.baselines["anything"].novel_ratio[20].low > 1.0
    assert (report.cold_users, report.cold.users) == (1, 1)
    assert set(report.sources) == {"interest", "collaborative", "group"}
    assert sum(source.returned for source in report.sources.values()) == 20 * report.users
    assert sum(source.hits for source in report.sources.values()) == report.novel.found
    for source in report.sources.values():
        assert source.unique_hits <= source.also_found <= report.novel.found
    assert report.filters["novelty"].targets_forbidden == report.all.targets - report.novel.targets
    assert report.reliability["all"].base_rate > 0
    assert report.latency["caller"].p99 >= report.latency["caller"].p50 > 0


def test_an_oracle_finds_everything_and_a_blind_one_nothing(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, evaluate: _Evaluate
) -> None:
    sighted = evaluate(Oracle(small_world, histories, held_out), DEEP)
    blind = evaluate(Oracle(small_world, histories, held_out, blind=True), DEEP)
    assert (sighted.novel.recall[60], sighted.novel.ndcg[60]) == (1.0, pytest.approx(1.0))
    assert (blind.novel.recall[60], blind.novel.found) == (0.0, 0)
    assert sighted.novel.found == sighted.sources["interest"].hits == sighted.sources["interest"].also_found
    # Every second candidate was found by the other source as well.
    assert 0 < sighted.sources["interest"].unique_hits < sighted.novel.found
    assert sighted.reliability["all"].brier < sighted.reliability["all"].brier_of_base_rate
    assert sighted.filters["novelty"].removed == 2 * sighted.users


def test_candidates_of_known_categories_are_counted_as_violations(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, evaluate: _Evaluate
) -> None:
    def usual(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        user = histories.user_numbers[request.user_id]
        known = held_out.clicked[user][small_world.catalogue.item_categories]
        # The cold user knows no category; items without one take its place.
        chosen = [*np.flatnonzero(known)[:3], *np.flatnonzero(~known)[:1]]
        return _response([small_world.item_ids[row] for row in chosen], [0.1] * 4)

    report = evaluate(usual)
    assert (report.violations, report.novelty_rate) == (3 * report.users, 0.25)
    assert report.fill == 4 / 20
    assert report.full_answers == 0


def test_own_items_are_excluded_and_nothing_else(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut
) -> None:
    asked: list[channel_pb2.RecallRequest] = []

    def record(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        asked.append(request)
        return _response([], [])

    users = held_out.targets.users[:5]
    replay(record, histories, small_world.catalogue, users, NOW, ReplayRequests(count=7))
    for user, request in zip(users.tolist(), asked, strict=True):
        own = {small_world.item_ids[row] for row in held_out.seen[user].indices}
        assert set(request.exclude_item_ids) == own
        assert (request.count, request.novelty_policy) == (7, channel_pb2.NOVELTY_POLICY_STRICT)
        assert not request.recent_events


def test_outcomes_are_clicks_of_the_period(small_world: SmallWorld, histories: Histories, held_out: HeldOut) -> None:
    oracle = Oracle(small_world, histories, held_out)
    requests = ReplayRequests(count=60)
    answers = replay(oracle, histories, small_world.catalogue, held_out.novel.users, NOW, requests)
    replayed = outcomes(answers, histories, NOW, UNTIL)
    assert len(replayed) == int(answers.returned.sum())
    assert int(replayed.hits.sum()) >= len(held_out.novel.rows)
    assert replayed.hits[replayed.raw > 0].all()
    assert not outcomes(answers, histories, UNTIL, UNTIL + 1).hits.any()


def test_targets_that_are_novel_when_clicked_are_those_of_a_brute_force_search(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut
) -> None:
    expected = set()
    for user in range(len(histories)):
        for click in range(int(histories.offsets[user]), int(histories.offsets[user + 1])):
            time, row = int(histories.times[click]), int(histories.items[click]) - 1
            earlier = histories.items[histories.offsets[user] : click]
            if time < NOW or row + 1 in earlier or not held_out.seen[user].nnz or row not in held_out.candidates:
                continue
            known = clicked_categories(histories.clicks_before(user, time), len(small_world.catalogue.categories))
            if not known[small_world.catalogue.item_categories[row]]:
                expected.add((user, row))
    found = rolling_novel_targets(histories, held_out)
    assert set(zip(np.repeat(found.users, found.counts).tolist(), found.rows.tolist(), strict=True)) == expected
    assert 0 < len(expected) < len(held_out.novel.rows)


def test_cold_users_are_measured_apart(small_world: SmallWorld, histories: Histories, held_out: HeldOut) -> None:
    number = histories.user_numbers[small_world.cold_user_id]
    assert cold_targets(histories, held_out).users.tolist() == [number]
    assert number not in held_out.targets.users


def test_a_sample_of_users_is_compared_on_the_same_users(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, evaluate: _Evaluate
) -> None:
    ideal = BaselineLists(all=_ideal(held_out, novel=False), novel=_ideal(held_out, novel=True))
    report = evaluate(
        Oracle(small_world, histories, held_out), DEEP.model_copy(update={"max_users": 9}), {"ideal": ideal}
    )
    assert report.users == 9
    assert report.baselines["ideal"].novel.users == report.novel.users
    ratio = report.baselines["ideal"].novel_ratio[60]
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.0, 1.0, 1.0))


def test_an_item_of_another_catalogue_is_refused(evaluate: _Evaluate) -> None:
    with pytest.raises(ReplayError, match="found item 'from elsewhere', expected items of the replayed catalogue"):
        evaluate(lambda _: _response(["from elsewhere"], [0.5]))


def test_more_candidates_than_asked_for_are_refused(small_world: SmallWorld, evaluate: _Evaluate) -> None:
    with pytest.raises(ReplayError, match="found 21 candidates, expected at most the 20 asked for"):
        evaluate(lambda _: _response(small_world.item_ids[:21], [0.5] * 21))


def test_the_report_is_readable_by_people_and_programs(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, tmp_path: Path, evaluate: _Evaluate
) -> None:
    report = evaluate(Oracle(small_world, histories, held_out))
    report = replace(report, cold=replace(report.cold, recall={5: float("nan"), 20: 1.0}))
    write_report(report, tmp_path)
    read = json.loads((tmp_path / "channel.json").read_text())
    assert read["novel"]["recall"]["20"] == report.novel.recall[20]
    assert read["cold"]["recall"]["5"] is None
    assert to_json(report) == (tmp_path / "channel.json").read_text()
    text = to_markdown(report)
    assert text == (tmp_path / "channel.md").read_text()
    assert text.startswith("# The channel on small-world\n")
    assert f"| novel targets (STRICT) | {report.novel.users} | {report.novel.targets} | " in text
    assert "Against baselines" not in text


def _ideal(held_out: HeldOut, *, novel: bool) -> NDArray[np.int64]:
    targets = held_out.novel if novel else held_out.targets
    lists = np.full((len(targets), 60), -1, np.int64)
    for i, count in enumerate(targets.counts):
        lists[i, :count] = targets.rows[targets.offsets[i] : targets.offsets[i] + count]
    return lists


def test_the_report_says_which_list_the_group_source_answered_from(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, tmp_path: Path
) -> None:
    grouped = make_grouped_world(small_world, tmp_path)
    with LocalChannel(grouped.snapshot_dir, LocalTower(small_world.tower_path), clock=lambda: NOW) as channel:
        report = evaluate_channel(
            channel.recall, histories, small_world.catalogue, held_out, dataset="grouped", config=CONFIG
        )
        users = np.arange(10, dtype=np.int64)
        requests = ReplayRequests(count=10, sources=frozenset({channel_pb2.SOURCE_GROUP}))
        alone = replay(channel.recall, histories, small_world.catalogue, users, NOW, requests)
    assert sum(report.novel_category_keys.values()) == report.users
    assert set(report.novel_category_keys) <= {"m3", "m2", "m1", "m0", "default"}
    assert report.cold_novel_category_keys == {"default": report.cold_users}
    assert report.sources["group"].found > 0
    text = to_markdown(report)
    assert "## Which list the group source answered from" in text
    assert f"| cold users | {report.cold_users} | 0.0% | 0.0% | 0.0% | 0.0% | 100.0% | 0.0% |" in text
    assert set(alone.sources[alone.rows >= 0].tolist()) == {channel_pb2.SOURCE_GROUP}
    assert json.loads(to_json(report))["novel_category_keys"] == report.novel_category_keys
