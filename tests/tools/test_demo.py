"""What the demo's acts show of a running service over a small world with lists."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from serendipity import layout
from serendipity.channel.client.messages import RecentEvent, to_result
from serendipity.tools.demo import show_alone
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


async def test_a_source_is_shown_alone_with_its_list_and_reasons(grouped: GroupedWorld, tmp_path: Path) -> None:
    warm = next(user for user in grouped.world.user_ids[::2] if grouped.group_of(user) in (1, 2, 3))
    console = Console(file=io.StringIO(), width=200)
    async with service(server_settings(tmp_path), channel_settings()) as (client, _):
        await show_alone(client, console, "group", warm, "has a group", 5)
        await show_alone(client, console, "group", "nobody", "belongs to the default group", 5)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    of_warm, of_cold = said.split("user nobody belongs to the default group")
    assert re.search(r"group 5 of \d+ found \(OK, list m[0-3]\)", of_warm)
    assert "list default" in of_cold
    for act, reason in ((of_warm, "People like you"), (of_cold, "Many people try")):
        assert reason in act
        assert "│ interest" not in act
        assert "│ collaborative" not in act


def test_a_path_of_a_group_is_not_taken_for_the_user_s_own() -> None:
    answer = channel_pb2.RecallResponse(
        reasons=[
            channel_pb2.Reason(source=source, seed="tea", core_demand="drinks", latent_interest=found)
            for source, found in (("SOURCE_GROUP", "cocoa"), ("SOURCE_INTEREST", "coffee"), ("SOURCE_INTEREST", ""))
        ],
    )
    assert own_paths(to_result(answer)) == [("tea", "drinks", "coffee")]


async def test_graph_candidates_are_shown_with_reasons_for_a_warm_user_and_for_a_session(
    grouped: GroupedWorld, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=200)
    catalogue = grouped.world.catalogue
    async with service(server_settings(tmp_path), channel_settings()) as (client, _):
        session = [RecentEvent(catalogue.item_ids[row]) for row in (0, 1, 2)]
        await show_alone(client, console, "graph", grouped.world.user_ids[0], "is known", 5)
        await show_alone(client, console, "graph", "nobody", "has clicked", 5, session)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    of_warm, of_session = said.split("user nobody has clicked")
    for act in (of_warm, of_session):
        assert "graph 5 of 10 found (OK)" in act
        assert "Goes with" in act
    assert f"Goes with {catalogue.titles[0]}" in of_session or f"Goes with {catalogue.titles[1]}" in of_session
