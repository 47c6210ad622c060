"""Calibration on held-out time, through the real pipeline."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serendipity.offline.calibration import CalibrationConfig
from serendipity.offline.calibration_replay import CalibrationReplay, active_users, replay_for_calibration
from serendipity.offline.snapshot.contents import check_calibration
from serendipity.tools.pipeline import open_pipeline
from serendipity.v1 import channel_pb2
from tests.fixtures.grouped_world import make_grouped_world
from tests.fixtures.small_histories import UNTIL, make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld


@pytest.fixture(scope="module")
def replayed(small_world: SmallWorld) -> CalibrationReplay:
    return replay_of(small_world)


@pytest.fixture(scope="module")
def replayed_groups(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> CalibrationReplay:
    return replay_of(make_grouped_world(small_world, tmp_path_factory.mktemp("grouped")).world)


def replay_of(world: SmallWorld) -> CalibrationReplay:
    return replay_for_calibration(
        open_pipeline,
        world.snapshot_dir,
        world.tower_path,
        make_small_histories(world),
        world.catalogue,
        NOW,
        UNTIL,
        max_users=1000,
        count=30,
        seed=0,
        config=CalibrationConfig(min_positives=20, bin_size=50),
    )


def test_every_source_and_path_gets_a_curve(replayed: CalibrationReplay) -> None:
    check_calibration(replayed.calibration)
    kinds = {(curve.source, curve.fallback) for curve in replayed.calibration.calibrators}
    assert (channel_pb2.SOURCE_COLLABORATIVE, False) in kinds
    assert (channel_pb2.SOURCE_COLLABORATIVE, True) in kinds
    assert (channel_pb2.SOURCE_INTEREST, False) in kinds
    assert replayed.calibration.horizon_days == 30
    assert replayed.users == 61
    assert sum(curve.num_candidates for curve in replayed.calibration.calibrators) == replayed.candidates


def test_the_group_source_gets_curves_of_its_own_on_all_that_it_finds(
    replayed: CalibrationReplay, replayed_groups: CalibrationReplay
) -> None:
    check_calibration(replayed_groups.calibration)
    curves = {(curve.source, curve.fallback): curve for curve in replayed_groups.calibration.calibrators}
    assert not any(curve.source == channel_pb2.SOURCE_GROUP for curve in replayed.calibration.calibrators)
    for fallback in (False, True):
        curve = curves[channel_pb2.SOURCE_GROUP, fallback]
        # 30 of each of 61 users, though beside the others most of these items would have gone to U2I.
        assert curve.num_candidates == 61 * 30
        assert curve.num_positives >= 20
        assert curve.probability[-1] > curve.probability[0]
    assert sum(curve.num_candidates for curve in curves.values()) == replayed_groups.candidates


def test_sources_replayed_alone_take_no_candidates_from_the_others_curves(
    replayed: CalibrationReplay, replayed_groups: CalibrationReplay
) -> None:
    alone = (channel_pb2.SOURCE_GROUP, channel_pb2.SOURCE_GRAPH)
    others = [curve for curve in replayed_groups.calibration.calibrators if curve.source not in alone]
    assert sum(curve.num_candidates for curve in others) == replayed.candidates


def test_scores_are_worth_what_they_say_and_more_than_the_base_rate(replayed: CalibrationReplay) -> None:
    measured = replayed.reliability
    assert measured.mean_predicted == pytest.approx(measured.base_rate, rel=0.1)
    assert measured.expected_calibration_error < 0.02
    assert measured.brier < measured.brier_of_base_rate
    assert replayed.novel_recall is not None
    assert replayed.novel_recall > 0.2


def test_what_was_found_is_written_as_json(replayed: CalibrationReplay) -> None:
    read = json.loads(replayed.to_json())
    assert read["novel_recall"] == replayed.novel_recall
    assert read["reliability"]["base_rate"] == replayed.reliability.base_rate


def test_only_users_who_are_there_are_asked_and_a_sample_is_the_same_each_time(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world)
    assert len(active_users(histories, NOW, UNTIL, 1000, 0)) == 61
    assert len(active_users(histories, UNTIL, UNTIL + 1, 1000, 0)) == 0
    some = active_users(histories, NOW, UNTIL, 10, 0)
    assert len(some) == 10
    assert np.array_equal(some, active_users(histories, NOW, UNTIL, 10, 0))
    assert not np.array_equal(some, active_users(histories, NOW, UNTIL, 10, 1))
