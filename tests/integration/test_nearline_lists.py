"""Lists near-line with the real tritonserver: what was missing is asked for, made, and found by the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serendipity.channel.nearline.process import Nearline, running_nearline
from serendipity.channel.nearline.subject import Kind, WantedList
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.state.availability import AvailabilityReader, AvailabilityStore
from serendipity.channel.state.state import UserState
from serendipity.groups.lists import is_current
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import (
    NOVELTY_LLM,
    RELEVANCE_LLM,
    novelty_llm,
    relevance_llm,
)
from serendipity.v1 import records_pb2
from tests.channel.served import channel_settings, server_settings
from tests.fixtures import tiny_coevolution
from tests.fixtures.small_world import NOW, SmallWorld
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration

PATIENCE = 60.0
NEEDED = 3


@dataclass(frozen=True)
class Running:
    """A near-line process in this one, and what a worker sees of it."""

    nearline: Nearline
    state: UserState
    groups: records_pb2.GroupSpec
    llms: records_pb2.CoevolutionSpec
    world: SmallWorld


@pytest.fixture
async def running(
    triton_server: RunningTriton, small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    groups, llms = _serve_models(triton_server, small_world, tmp_path, monkeypatch)
    contents = replace(
        small_world.contents,
        group_spec=groups,
        groups=[records_pb2.GroupRecord(group_id=g, profile=f"group {g}") for g in range(groups.num_groups + 1)],
        coevolution=llms,
    )
    snapshot = write_snapshot(contents, tmp_path / "snapshots", created_at=NOW)
    Publications(tmp_path / "snapshots").publish(snapshot.name)
    settings = server_settings(
        tmp_path, nearline_poll_seconds=0.05, nearline_commit_seconds=0.001, nearline_list_requests=NEEDED
    )
    async with AsyncExitStack() as stack:
        availability = AvailabilityStore(settings.availability_path, map_bytes=1 << 24)
        stack.callback(availability.close)
        overlay = AvailabilityReader(lambda: availability)
        stack.callback(overlay.close)
        nearline = await stack.enter_async_context(
            running_nearline(settings, channel_settings(triton_url=triton_server.url))
        )
        state = UserState(None, overlay.overlay, lambda: nearline.store, lambda: nearline.erasures)
        yield Running(nearline, state, groups, llms, small_world)


def _serve_models(
    triton_server: RunningTriton, world: SmallWorld, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[records_pb2.GroupSpec, records_pb2.CoevolutionSpec]:
    """Load models of random weights that know the world's items and categories."""
    monkeypatch.setattr(tiny_coevolution, "NUM_ITEMS", len(world.item_ids))
    monkeypatch.setattr(tiny_coevolution, "CATEGORIES", tuple(world.catalogue.categories))
    groups = tiny_coevolution.make_tiny_group_encoder(directory / "groups")
    llms = tiny_coevolution.make_tiny_coevolution(directory / "coevolution", max_prompt_tokens=200)
    llms.group_model_id = groups.group_model_id
    llms.taxonomy_hash = world.contents.taxonomy_hash
    # Random weights are sure of nothing: whatever they give is enough.
    llms.threshold = 0.0
    for llm in (NOVELTY_LLM, RELEVANCE_LLM):
        deployment.place(llm, directory / "coevolution", triton_server.models_dir)
    for pinned in (novelty_llm(llms), relevance_llm(llms)):
        deployment.load(triton_server.grpc_url, pinned)
    return groups, llms


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that the near-line process brings about."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_missing_list_is_asked_for_often_enough_filled_and_found(running: Running) -> None:
    names = running.world.catalogue.categories
    want = WantedList(running.groups.group_model_id, 2, (names[4], names[0]))
    for _ in range(NEEDED - 1):
        assert running.state.novel_categories(want.key) is None
        running.state.want_novel_categories(want)
    assert running.nearline.store.flush(PATIENCE)
    assert running.nearline.store.queue(Kind.LISTS).take(10, NOW) == []
    running.state.want_novel_categories(want)
    await until(lambda: running.state.novel_categories(want.key) is not None)
    record = running.state.novel_categories(want.key)
    assert record is not None
    with running.nearline.holder.acquire() as lease:
        assert is_current(record, running.llms, lease.snapshot.taxonomy_hash)
    listed = [names[number - 1] for number in record.categories]
    assert len(listed) == len(set(listed)) == running.llms.num_candidates
    assert not {*listed} & {*want.categories}
    assert list(record.scores) == sorted(record.scores, reverse=True)
    sample = running.nearline.telemetry.registry.get_sample_value
    await until(lambda: bool(sample("serendipity_nearline_batch_seconds_count", {"kind": Kind.LISTS})))
