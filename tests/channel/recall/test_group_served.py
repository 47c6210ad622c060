"""The group source in whole answers: over the wire, in the metrics and the serving log, and on a running service."""

from __future__ import annotations

import math
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.client.messages import Feedback
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.query import SOURCES
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb
from tests.channel.served import channel_settings, scrape, server_settings, service
from tests.fixtures.grouped_world import GENERATION, GROUP_MODEL, GroupedWorld
from tests.fixtures.serving_log import read_serving_log
from tests.fixtures.small_world import NOW

COUNT = 30


@pytest.fixture(scope="module")
def channel(grouped_world: GroupedWorld) -> Iterator[LocalChannel]:
    tower = LocalTower(grouped_world.world.tower_path)
    with LocalChannel(grouped_world.snapshot_dir, tower, clock=lambda: NOW) as opened:
        yield opened


def status_of(response: pb.RecallResponse, source: pb.Source = pb.SOURCE_GROUP) -> pb.SourceStatus:
    return next(status for status in response.source_statuses if status.source == source)


def only_groups(user_id: str, count: int = COUNT, **fields: object) -> pb.RecallRequest:
    """Ask for candidates of the group source alone."""
    quotas = [pb.SourceQuota(source=source, max_count=count if source == pb.SOURCE_GROUP else 0) for source in SOURCES]
    return pb.RecallRequest(user_id=user_id, count=count, source_quotas=quotas, **fields)  # type: ignore[arg-type]


@pytest.fixture
def user_id(grouped_world: GroupedWorld) -> str:
    """A user with a group that has lists."""
    return next(user for user in grouped_world.world.user_ids if grouped_world.group_of(user) in (1, 2, 3))


def test_all_sources_find_candidates_with_reasons(
    grouped_world: GroupedWorld, channel: LocalChannel, user_id: str
) -> None:
    response = channel.recall(pb.RecallRequest(user_id=user_id, count=COUNT, explain=True))
    assert [status.state for status in response.source_statuses] == [pb.SOURCE_STATE_OK] * len(SOURCES)
    assert not response.degraded
    assert {reason.source for reason in response.reasons} == set(SOURCES)
    assert (response.versions.group_model_id, response.versions.generation) == (GROUP_MODEL, GENERATION)
    keys = [status.novel_category_key for status in response.source_statuses]
    assert keys[:2] == [pb.NOVEL_CATEGORY_KEY_UNSPECIFIED] * 2
    assert keys[2] in (pb.NOVEL_CATEGORY_KEY_M3, pb.NOVEL_CATEGORY_KEY_M2, pb.NOVEL_CATEGORY_KEY_M1)
    # Every reason once: one a category.
    of_groups = [reason.latent_interest for reason in response.reasons if reason.source == pb.SOURCE_GROUP]
    assert len(of_groups) == len(set(of_groups)) > 1
    # A host can word each in any language.
    for reason in response.reasons:
        assert reason.kind not in (pb.REASON_KIND_UNSPECIFIED, pb.REASON_KIND_UNKNOWN)
        assert reason.relation != pb.REASON_RELATION_UNSPECIFIED
        assert bool(reason.recent_categories) == (reason.relation == pb.REASON_RELATION_NEXT)


def test_a_group_candidate_is_of_the_category_its_reason_names(
    grouped_world: GroupedWorld, channel: LocalChannel, user_id: str
) -> None:
    response = channel.recall(only_groups(user_id, explain=True))
    assert len(response.item_ids) == COUNT
    assert set(response.sources) == {pb.SOURCE_GROUP}
    values = np.array(response.rank_features.values).reshape(COUNT, len(FEATURE_NAMES))
    columns = dict(zip(FEATURE_NAMES, values.T, strict=True))
    recent = grouped_world.recent(user_id)
    for i in range(COUNT):
        reason = response.reasons[response.reason_indexes[i]]
        assert reason.latent_interest == response.categories[response.category_indexes[i]]
        assert reason.weight == pytest.approx(columns["alignment"][i])
        assert reason.core_demand.startswith(recent[0])
        assert reason.seed.startswith("chooses ")
        assert reason.text.startswith("People like you (chooses ")
    assert (np.diff(response.scores) <= 0).all()
    assert (columns["alignment_recent"] >= 1).all()
    assert list(response.relevance) == columns["group_score"].tolist()
    # The model orders them, and the cap per category passes some over; ranks are the source's own.
    ranks = columns["group_reciprocal_rank"]
    assert (ranks > 0).all()
    assert (np.diff(ranks[np.argsort(-columns["group_score"])]) < 0).all()
    assert columns["interest_weight"].tolist() == [0.0] * COUNT


def test_a_cold_user_gets_group_candidates_with_reasons(grouped_world: GroupedWorld, channel: LocalChannel) -> None:
    response = channel.recall(only_groups(grouped_world.world.cold_user_id, explain=True))
    assert len(response.item_ids) == COUNT
    assert status_of(response).novel_category_key == pb.NOVEL_CATEGORY_KEY_DEFAULT
    assert not response.degraded
    assert {reason.seed for reason in response.reasons} == {"Everybody"}
    assert all(reason.text.startswith("Many people try ") for reason in response.reasons)


def test_no_category_fills_what_the_source_finds(channel: LocalChannel, user_id: str) -> None:
    response = channel.recall(only_groups(user_id))
    counts = np.bincount(response.category_indexes)
    assert len(counts) > 2
    assert counts.max() <= math.ceil(0.3 * COUNT)


@pytest.mark.parametrize("bounded", ["user-13", "user-16", "user-01"])
def test_the_source_is_bounded_like_the_others(
    grouped_world: GroupedWorld, channel: LocalChannel, bounded: str
) -> None:
    assert grouped_world.group_of(bounded) in (1, 2, 3)
    free = channel.recall(pb.RecallRequest(user_id=bounded, count=COUNT))
    # Minima have to take candidates from further down.
    assert list(free.sources).count(pb.SOURCE_GROUP) < 12
    for least, most in ((0, 0), (0, 3), (7, 7), (12, COUNT)):
        quota = pb.SourceQuota(source=pb.SOURCE_GROUP, min_count=least, max_count=most)
        response = channel.recall(pb.RecallRequest(user_id=bounded, count=COUNT, source_quotas=[quota]))
        held = list(response.sources).count(pb.SOURCE_GROUP)
        assert held <= most
        assert status_of(response).returned == held
        if not most:
            assert (status_of(response).state, status_of(response).found) == (pb.SOURCE_STATE_EMPTY, 0)
        # At least so many, if the source has them.
        assert held >= min(least, status_of(response).found)


def test_a_snapshot_without_groups_says_nothing_of_keys(local_channel: LocalChannel, user_id: str) -> None:
    response = local_channel.recall(pb.RecallRequest(user_id=user_id, count=COUNT))
    status = status_of(response)
    assert (status.state, status.found) == (pb.SOURCE_STATE_EMPTY, 0)
    assert status.novel_category_key == pb.NOVEL_CATEGORY_KEY_UNSPECIFIED
    assert (response.versions.group_model_id, response.versions.generation) == ("", 0)
    assert not response.degraded


def test_interests_are_answered_alike_with_the_source_and_without(
    grouped_world: GroupedWorld, local_channel: LocalChannel, user_id: str
) -> None:
    tower = LocalTower(grouped_world.world.tower_path)
    settings = ChannelSettings(novel_categories_used=0, graph_source=False)
    with LocalChannel(grouped_world.snapshot_dir, tower, settings=settings, clock=lambda: NOW) as without:
        response = without.recall(pb.RecallRequest(user_id=user_id, count=COUNT))
    before = local_channel.recall(pb.RecallRequest(user_id=user_id, count=COUNT))
    assert response.item_ids == before.item_ids
    assert response.scores == before.scores


async def test_a_running_service_counts_keys_and_logs_them_and_takes_clicks_on_group_candidates(
    grouped_world: GroupedWorld, tmp_path: Path, user_id: str
) -> None:
    shutil.copytree(grouped_world.world.snapshots_root, tmp_path / "snapshots")
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to(grouped_world.world.version)
    settings = server_settings(tmp_path)
    quotas = {"interest": (0, 0), "collaborative": (0, 0), "group": (0, COUNT), "graph": (0, 0)}
    async with service(settings, channel_settings()) as (client, worker):
        first = await client.recall(user_id, count=COUNT, quotas=quotas, explain=True)
        assert {candidate.source for candidate in first.candidates} == {"group"}
        clicked = first.candidates[0]
        await client.record_feedback(
            [Feedback(user_id, candidate.item_id, "exposure", first.recall_id) for candidate in first.candidates]
            + [Feedback(user_id, clicked.item_id, "click", first.recall_id)]
        )
        second = await client.recall(user_id, count=COUNT)
        shown = {candidate.item_id for candidate in first.candidates}
        assert not shown & {candidate.item_id for candidate in second.candidates}
        assert clicked.category not in {candidate.category for candidate in second.candidates}
        cold = await client.recall("nobody", count=COUNT)
        assert status_of(cold.message).novel_category_key == pb.NOVEL_CATEGORY_KEY_DEFAULT
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.metrics_port}/metrics") as answer:
            text = answer.read().decode()
    keys = scrape(text, "serendipity_novel_category_keys_total")
    assert sum(keys.values()) == 3
    assert keys['{key="default"}'] == 1
    assert scrape(text, "serendipity_candidates_total")['{source="group",step="returned"}'] >= COUNT
    logged = {record.response.recall_id: record.response for record in read_serving_log(settings.serving_log_path)}
    response = logged[first.recall_id]
    assert status_of(response).novel_category_key == status_of(first.message).novel_category_key
    assert response.versions.group_model_id == GROUP_MODEL
    assert len(response.reasons) > 0
