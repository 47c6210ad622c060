"""The channel's evaluation: the real pipeline over a small world, and made-up channels whose figures are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from serendipity.channel.local import LocalChannel
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.evaluate.channel import ChannelEvaluation, ChannelEvaluationConfig, cold_targets
from serendipity.offline.evaluate.channel_report import ChannelReport, to_markdown, write_report
from serendipity.offline.evaluate.control_choice import CONTROLS, Grid
from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.replay import Recall, ReplayError, ReplayRequests, hits, replay
from serendipity.offline.logs.histories import Histories
from serendipity.v1 import channel_pb2
from tests.fixtures.grouped_world import make_grouped_world
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld

GRID = Grid(factors=(4,), alphas=(1.0,), ridges=(10.0,), exponents=(0.0, 0.5))
CONFIG = ChannelEvaluationConfig(depths=(5, 20), bootstrap_samples=200, grid=GRID)
DEEP = ChannelEvaluationConfig(depths=(20, 60), bootstrap_samples=200, grid=GRID)


@pytest.fixture(scope="module")
def histories(small_world: SmallWorld) -> Histories:
    # Who explores before the cut is what the controls are chosen on.
    return make_small_histories(small_world, explorers=12)


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


class Evaluate(Protocol):
    def __call__(self, recall: Recall, config: ChannelEvaluationConfig = CONFIG) -> ChannelReport: ...


@pytest.fixture
def evaluate(small_world: SmallWorld, histories: Histories) -> Evaluate:
    def run(recall: Recall, config: ChannelEvaluationConfig = CONFIG) -> ChannelReport:
        evaluation = ChannelEvaluation.prepare(histories, small_world.catalogue, NOW, UNTIL, [0], config)
        return evaluation.report("small-world", [evaluation.replay(recall, 0)])

    return run


def test_the_real_pipeline_recalls_what_was_planted(
    small_world: SmallWorld, held_out: HeldOut, channel: LocalChannel, evaluate: Evaluate
) -> None:
    report = evaluate(channel.recall)
    assert report.users == len(small_world.user_ids)
    assert report.snapshots == (small_world.version,)
    assert (report.answers.violations, report.answers.degraded, report.answers.fill) == (0, 0, 1.0)
    novel = ~held_out.clicked[held_out.novel.users][:, held_out.item_categories[held_out.candidates]]
    by_chance = 20 / novel.sum(axis=1).mean()
    assert report.channel.mean("recall", 20) > 2 * by_chance
    assert report.cold is not None
    assert report.cold.users == 1
    assert {source.name for source in report.sources} == {"interest", "collaborative", "group", "graph"}
    assert sum(source.places for source in report.sources) == pytest.approx(20)
    hits_per_user = sum(source.hits for source in report.sources)
    assert all(source.only_it <= hits_per_user for source in report.sources)
    assert report.reliability["all"].base_rate > 0
    times = report.answers.milliseconds["caller"]
    assert times.p99 >= times.p50 > 0


def test_every_method_is_judged_on_the_same_users_and_places(channel: LocalChannel, evaluate: Evaluate) -> None:
    report = evaluate(channel.recall)
    names = [method.name for method in report.methods]
    assert names[: len(CONTROLS)] == [control.name for control in CONTROLS]
    assert names[len(CONTROLS) :] == [
        "channel",
        "source interest alone", "channel, popularity for interest",
        "source collaborative alone", "channel, popularity for collaborative",
    ]  # fmt: skip
    for method in report.methods:
        for (measure, k), values in method.per_user.items():
            assert k in (5, 20)
            assert values.shape == (1, report.users), (method.name, measure)
        assert (method.kind == "exchange") == (("exclusive", 20) not in method.per_user)


def test_an_oracle_finds_everything_and_a_blind_one_nothing(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, evaluate: Evaluate
) -> None:
    sighted = evaluate(Oracle(small_world, histories, held_out), DEEP)
    blind = evaluate(Oracle(small_world, histories, held_out, blind=True), DEEP)
    assert sighted.targets["never"] + sighted.targets["re-entry"] == sighted.targets["recall"] > 0
    assert sighted.channel.mean("recall", 60) == 1.0
    assert sighted.channel.mean("serendipity", 60) == pytest.approx(1.0, abs=0.1)
    assert blind.channel.mean("recall", 60) == 0.0
    (interest,) = sighted.sources
    assert interest.hits == pytest.approx(sighted.targets["recall"] / sighted.users)
    # Every second candidate was found by the other source as well.
    assert 0 < interest.only_it < interest.hits
    assert interest.hits > interest.popularity_hits
    assert sighted.reliability["all"].brier < sighted.reliability["all"].brier_of_base_rate


def test_what_the_host_has_already_is_sent_along_and_never_counted(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut
) -> None:
    evaluation = ChannelEvaluation.prepare(histories, small_world.catalogue, NOW, UNTIL, [0], CONFIG)
    assert evaluation.host.shape == (len(evaluation.users), 2 * 20)
    excluded: dict[str, set[str]] = {}
    oracle = Oracle(small_world, histories, held_out)

    def stubborn(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        excluded.setdefault(request.user_id, set()).update(request.exclude_item_ids)
        return oracle(request)  # whatever is excluded

    run = evaluation.replay(stubborn, 0)
    for user, rows in zip(evaluation.users.tolist(), evaluation.host, strict=True):
        assert {small_world.item_ids[row] for row in rows if row >= 0} <= excluded[histories.user_ids[user]]
    measured = evaluation.judge.exclusive(run.lists[0].exclusive, (20,))["exclusive", 20]
    for i, rows in enumerate(evaluation.host):
        start, end = evaluation.judge.targets.offsets[i : i + 2]
        wanted = set(evaluation.judge.targets.rows[start:end].tolist())
        assert measured[i] == len(wanted - set(rows.tolist()))


def test_candidates_of_known_categories_are_counted_as_violations(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, evaluate: Evaluate
) -> None:
    def usual(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        user = histories.user_numbers[request.user_id]
        known = held_out.clicked[user][small_world.catalogue.item_categories]
        # The cold user knows no category; items without one take its place.
        chosen = [*np.flatnonzero(known)[:3], *np.flatnonzero(~known)[:1]]
        return _response([small_world.item_ids[row] for row in chosen], [0.1] * 4)

    report = evaluate(usual)
    assert report.answers.violations == 3 * report.users
    assert report.answers.fill == 4 / 20


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


def test_requests_carry_the_surprise_that_is_asked_for(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut
) -> None:
    asked: list[channel_pb2.RecallRequest] = []

    def record(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        asked.append(request)
        return _response([], [])

    users = held_out.targets.users[:1]
    replay(record, histories, small_world.catalogue, users, NOW, ReplayRequests())
    replay(record, histories, small_world.catalogue, users, NOW, ReplayRequests(surprise=0.0))
    assert not asked[0].HasField("surprise")
    assert asked[1].HasField("surprise")
    assert asked[1].surprise == 0


def test_hits_are_clicks_of_the_period(small_world: SmallWorld, histories: Histories, held_out: HeldOut) -> None:
    oracle = Oracle(small_world, histories, held_out)
    requests = ReplayRequests(count=60)
    answers = replay(oracle, histories, small_world.catalogue, held_out.novel.users, NOW, requests)
    found = hits(answers, histories, NOW, UNTIL)
    assert found.shape == answers.rows.shape
    assert int(found.sum()) >= len(held_out.novel.rows)
    assert found[answers.relevance > 0].all()
    assert not found[answers.rows < 0].any()
    assert not hits(answers, histories, UNTIL, UNTIL + 1).any()


def test_rank_features_are_kept_where_they_are_wanted(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut
) -> None:
    def brief(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        # The first user is answered nothing, the others three items.
        k = 0 if request.user_id == histories.user_ids[users[0]] else 3
        return _response(small_world.item_ids[:k], [0.5] * k)

    users = held_out.targets.users[:3]
    kept = replay(brief, histories, small_world.catalogue, users, NOW, ReplayRequests(count=5, features=True))
    assert kept.feature_names == ("interest_reciprocal_rank", "collaborative_reciprocal_rank")
    assert kept.features.shape == (3, 5, 2)
    assert kept.features[1:, :, 0].tolist() == [[1, 1, 1, 0, 0]] * 2
    assert kept.features[1:, :, 1].tolist() == [[0, 1, 0, 0, 0]] * 2
    assert not kept.features[0].any()
    without = replay(brief, histories, small_world.catalogue, users, NOW, ReplayRequests(count=5))
    assert (without.features.shape, without.feature_names) == ((3, 5, 0), ())


def test_cold_users_are_measured_apart(small_world: SmallWorld, histories: Histories, held_out: HeldOut) -> None:
    number = histories.user_numbers[small_world.cold_user_id]
    assert cold_targets(histories, held_out).users.tolist() == [number]
    assert number not in held_out.targets.users


def test_a_sample_of_users_is_judged_by_every_method(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, evaluate: Evaluate
) -> None:
    report = evaluate(Oracle(small_world, histories, held_out), DEEP.model_copy(update={"max_users": 9}))
    assert report.users == 9
    assert {values.shape for method in report.methods for values in method.per_user.values()} == {(1, 9)}


def test_an_item_of_another_catalogue_is_refused(evaluate: Evaluate) -> None:
    with pytest.raises(ReplayError, match="found item 'from elsewhere', expected items of the replayed catalogue"):
        evaluate(lambda _: _response(["from elsewhere"], [0.5]))


def test_more_candidates_than_asked_for_are_refused(small_world: SmallWorld, evaluate: Evaluate) -> None:
    with pytest.raises(ReplayError, match="found 21 candidates, expected at most the 20 asked for"):
        evaluate(lambda _: _response(small_world.item_ids[:21], [0.5] * 21))


def test_a_channel_that_answers_nothing_is_reported_as_such(evaluate: Evaluate) -> None:
    text = to_markdown(evaluate(lambda _: _response([], [])), "")
    assert "| fill | 0.0% |" in text
    assert "No answer held a candidate." in text


def test_a_period_in_which_nothing_new_is_clicked_is_refused(small_world: SmallWorld, histories: Histories) -> None:
    with pytest.raises(ValueError, match="found no novel target in"):
        ChannelEvaluation.prepare(histories, small_world.catalogue, NOW, NOW + 1, [0], CONFIG)


def test_the_report_is_readable_by_people_and_programs(
    small_world: SmallWorld, histories: Histories, held_out: HeldOut, tmp_path: Path, evaluate: Evaluate
) -> None:
    report = evaluate(Oracle(small_world, histories, held_out))
    write_report(report, "`serendip evaluate channel`, today", tmp_path)
    read = json.loads((tmp_path / "channel.json").read_text())
    found = next(method for method in read["methods"] if method["kind"] == "channel")
    assert found["by seed"]["recall@20"] == [report.channel.mean("recall", 20)]
    text = (tmp_path / "channel.md").read_text()
    assert text.startswith("# The channel on small-world\n\n`serendip evaluate channel`, today\n")
    assert "| **channel** | " in text


def test_the_report_says_which_list_the_group_source_answered_from(
    small_world: SmallWorld, histories: Histories, tmp_path: Path
) -> None:
    grouped = make_grouped_world(small_world, tmp_path)
    evaluation = ChannelEvaluation.prepare(histories, small_world.catalogue, NOW, UNTIL, [0], CONFIG)
    with LocalChannel(grouped.snapshot_dir, LocalTower(small_world.tower_path), clock=lambda: NOW) as channel:
        report = evaluation.report("grouped", [evaluation.replay(channel.recall, 0)])
        users = np.arange(10, dtype=np.int64)
        requests = ReplayRequests(count=10, sources=frozenset({channel_pb2.SOURCE_GROUP}))
        alone = replay(channel.recall, histories, small_world.catalogue, users, NOW, requests)
    assert next(source for source in report.sources if source.name == "group").places > 0
    assert "source group alone" in {method.name for method in report.methods}
    assert set(alone.sources[alone.rows >= 0].tolist()) == {channel_pb2.SOURCE_GROUP}
