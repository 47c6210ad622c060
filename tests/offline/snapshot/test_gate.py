"""The quality gate and the canary it judges."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity import layout
from serendipity.channel.local import LocalChannel
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.offline.snapshot.canary import Canary, CanaryConfig, ask_canary
from serendipity.offline.snapshot.gate import GateConfig, GateRefusedError, judge, pass_gate, read_canary, record_canary
from serendipity.v1 import channel_pb2
from tests.fixtures.small_histories import make_small_histories
from tests.fixtures.small_world import NOW, SmallWorld

GOOD = Canary(
    users=500, fill=0.95, empty=0, coverage=0.4, violations=0, degraded=0,
    score_deciles=tuple(np.linspace(0.001, 0.02, 9).tolist()), novel_recall=0.06,
)  # fmt: skip


def test_a_snapshot_like_the_current_one_passes() -> None:
    assert all(finding.holds for finding in pass_gate(GOOD, GOOD))


def test_a_first_snapshot_is_held_against_absolute_bounds_only() -> None:
    assert len(judge(GOOD, None)) < len(judge(GOOD, GOOD))
    pass_gate(dataclasses.replace(GOOD, fill=0.51, coverage=0.011), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fill": 0.3}, r"fill: found 0\.3, expected at least 0\.5"),
        ({"fill": 0.8}, r"fill against current: found 0\.8, expected at least 0\.855"),
        ({"coverage": 0.2}, r"coverage against current: found 0\.2, expected at least 0\.28"),
        ({"violations": 1}, "novelty violations: found 1, expected at most 0"),
        ({"empty": 6}, r"share of empty answers: found 0\.012, expected at most 0\.01"),
        ({"degraded": 1}, r"share of degraded answers: found 0\.002, expected at most 0"),
        ({"novel_recall": 0.05}, r"novel recall against current: found 0\.05, expected at least 0\.051"),
        ({"novel_recall": None}, "novel recall against current: found nan"),
        ({"score_deciles": (0.004, *GOOD.score_deciles[1:])}, r"score p10 against current: .* at most 0\.003"),
        ({"users": 0}, "canary users: found 0, expected at least 1"),
    ],
)  # fmt: skip
def test_a_broken_bound_is_named_with_what_was_found_and_expected(change: dict[str, object], message: str) -> None:
    with pytest.raises(GateRefusedError, match=message):
        pass_gate(dataclasses.replace(GOOD, **change), GOOD)  # type: ignore[arg-type]


def test_every_broken_bound_is_listed_and_no_other() -> None:
    worse = dataclasses.replace(GOOD, fill=0.2, violations=3)
    with pytest.raises(GateRefusedError, match="3 of 19 bounds broken") as refused:
        pass_gate(worse, GOOD)
    assert [f.name for f in refused.value.findings if not f.holds] == [
        "novelty violations",
        "fill",
        "fill against current",
    ]
    assert "coverage" not in str(refused.value)


def test_bounds_are_configuration() -> None:
    pass_gate(dataclasses.replace(GOOD, fill=0.2), GOOD, GateConfig(min_fill=0.1, max_fill_drop=0.9))


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_fill_never_fails_where_less_passes(low: float, high: float) -> None:
    low, high = sorted((low, high))
    holds = [
        all(finding.holds for finding in judge(dataclasses.replace(GOOD, fill=fill), GOOD)) for fill in (low, high)
    ]
    assert holds[0] <= holds[1]


def test_what_was_measured_is_kept_in_the_manifest_and_the_snapshot_stays_whole(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    directory = tmp_path / small_world.version
    shutil.copytree(small_world.snapshot_dir, directory)
    assert read_canary(directory) is None
    record_canary(directory, GOOD)
    assert read_canary(directory) == GOOD
    assert layout.verify_files(directory).version == small_world.version
    better = dataclasses.replace(GOOD, fill=1.0, novel_recall=None)
    record_canary(directory, better)
    assert read_canary(directory) == better
    (tmp_path / layout.CURRENT).symlink_to(small_world.version)
    record_canary(directory, better)
    with pytest.raises(ValueError, match="quality: cannot be changed, the snapshot is being served"):
        record_canary(directory, GOOD)


def test_the_canary_of_a_real_snapshot_passes(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world)
    with LocalChannel(small_world.snapshot_dir, LocalTower(small_world.tower_path), clock=lambda: NOW) as channel:
        canary = ask_canary(channel.recall, histories, small_world.catalogue, NOW, CanaryConfig(num_users=30, count=20))
    assert (canary.users, canary.violations, canary.degraded, canary.empty) == (30, 0, 0, 0)
    assert canary.fill == 1.0
    assert 0.2 < canary.coverage <= 1.0
    assert list(canary.score_deciles) == sorted(canary.score_deciles)
    pass_gate(canary, None)


def test_candidates_of_known_categories_are_violations(small_world: SmallWorld) -> None:
    histories = make_small_histories(small_world)

    def usual(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        user = histories.user_numbers[request.user_id]
        own = histories.clicks_before(user, NOW)
        items = own.items[:1].tolist() or [1]
        return channel_pb2.RecallResponse(
            item_ids=[small_world.item_ids[item - 1] for item in items],
            scores=[0.1], relevance=[0.1], unexpectedness=[0.0], sources=[channel_pb2.SOURCE_COLLABORATIVE],
        )  # fmt: skip

    canary = ask_canary(usual, histories, small_world.catalogue, NOW)
    assert (canary.users, canary.violations) == (61, 60)
    with pytest.raises(GateRefusedError, match="novelty violations: found 60, expected at most 0"):
        pass_gate(canary, None, GateConfig(min_fill=0, min_coverage=0))
