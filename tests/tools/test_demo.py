"""What the demo's acts show of a running service over a small world with lists."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from serendipity import layout
from serendipity.channel.client.messages import to_result
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.tools.demo_graph import show_graph
from serendipity.tools.demo_groups import is_of_another_group, list_keys, show_groups
from serendipity.tools.demo_nearline import own_paths
from serendipity.v1 import channel_pb2
from tests.channel.served import channel_settings, server_settings, service
from tests.fixtures.grouped_world import GroupedWorld, make_grouped_world
from tests.fixtures.small_world import SmallWorld


@pytest.fixture
def grouped(small_world: SmallWorld, tmp_path: Path) -> GroupedWorld:
    world = make_grouped_world(small_world, tmp_path / "grouped")
    shutil.copytree(world.world.snapshots_root, tmp_path / "snapshots")
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to(world.world.version)
    return world


async def test_group_candidates_are_shown_with_list_and_reasons_for_a_warm_and_a_cold_user(
    grouped: GroupedWorld, tmp_path: Path
) -> None:
    warm = next(user for user in grouped.world.user_ids[::2] if grouped.group_of(user) in (1, 2, 3))
    console = Console(file=io.StringIO(), width=200)
    async with service(server_settings(tmp_path), channel_settings()) as (client, _):
        await show_groups(client, console, warm, "nobody", 5)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    of_warm, of_cold = said.split("user nobody belongs to the default group")
    assert re.search(rf"user {warm} has a group; answered from the list of key m[0-3]", of_warm)
    assert "answered from the list of key default" in of_cold
    for act, reason in ((of_warm, "People like you"), (of_cold, "Many people try")):
        assert reason in act
        assert "│ interest" not in act
        assert "│ collaborative" not in act


async def test_nobody_is_said_to_have_a_group_whom_the_answer_does_not_show_in_one(
    grouped: GroupedWorld, tmp_path: Path
) -> None:
    of_default_group = next(user for user in grouped.world.user_ids if grouped.group_of(user) == DEFAULT_GROUP)
    console = Console(file=io.StringIO(), width=200)
    async with service(server_settings(tmp_path), channel_settings()) as (client, _):
        await show_groups(client, console, of_default_group, "nobody", 5)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "has a group" not in said
    assert f"user {of_default_group} shows no group of their own in this answer; answered from the list" in said


@pytest.mark.parametrize(
    ("profile", "of_everybody", "expected"),
    [("tea", "all", True), ("all", "all", False), ("", "all", False), ("all", "", False)],
)
def test_a_group_shows_in_a_profile_that_is_not_everybodys(profile: str, of_everybody: str, expected: bool) -> None:
    warm, cold = (
        to_result(channel_pb2.RecallResponse(reasons=[channel_pb2.Reason(source="SOURCE_GROUP", seed=seed)]))
        for seed in (profile, of_everybody)
    )
    assert is_of_another_group(warm, cold) is expected


def test_a_path_of_a_group_is_not_taken_for_the_user_s_own() -> None:
    answer = channel_pb2.RecallResponse(
        reasons=[
            channel_pb2.Reason(source=source, seed="tea", core_demand="drinks", latent_interest=found)
            for source, found in (("SOURCE_GROUP", "cocoa"), ("SOURCE_INTEREST", "coffee"), ("SOURCE_INTEREST", ""))
        ],
        source_statuses=[
            channel_pb2.SourceStatus(source="SOURCE_INTEREST"),
            channel_pb2.SourceStatus(source="SOURCE_GROUP", novel_category_key="NOVEL_CATEGORY_KEY_M1"),
        ],
    )
    assert own_paths(to_result(answer)) == [("tea", "drinks", "coffee")]
    assert list_keys(to_result(answer)) == ["m1"]


async def test_graph_candidates_are_shown_with_reasons_for_a_warm_user_and_for_a_session(
    grouped: GroupedWorld, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=200)
    catalogue = grouped.world.catalogue
    async with service(server_settings(tmp_path), channel_settings()) as (client, _):
        users = (grouped.world.user_ids[0], "nobody")
        await show_graph(client, console, catalogue, users, [0, 1, 2], 5)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    of_warm, of_session = said.split("user nobody has no record anywhere and has just clicked")
    for act in (of_warm, of_session):
        assert "graph 5 of 10 found (OK)" in act
        assert "Goes with" in act
    assert f"Goes with {catalogue.titles[0]}" in of_session or f"Goes with {catalogue.titles[1]}" in of_session
