"""The whole service with Triton: users without interests are queued, refreshed by InterestGPT, and served by them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf import json_format

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.messages import RecallResult
from serendipity.channel.snapshot.publication import Publications
from serendipity.interests import model
from serendipity.offline import encoder
from serendipity.offline.encoder import TextEncoder
from serendipity.tools.service import Service, launch_service
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import (
    AS_CHECKED_IN,
    INTEREST_GPT,
    TEXT_ENCODER,
    USER_TOWER,
    interest_gpt,
    user_tower,
)
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_world import write_nearline_snapshot
from tests.fixtures.small_world import DIM, SmallWorld, make_small_world
from tests.fixtures.tiny_interest_gpt import MAX_NEW_TOKENS, make_tiny_interest_gpt, write_spec
from tests.fixtures.tiny_language_model import MAX_POSITIONS
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration

PATIENCE = 60.0


@dataclass(frozen=True)
class Running:
    """A service whose snapshot holds no interests of anybody. spec: of the InterestGPT it asks."""

    world: SmallWorld
    build: Path
    service: Service
    spec: records_pb2.InterestGptSpec

    @property
    def nearline_pid(self) -> int:
        """Process id of the near-line process that was started last; 0 before the first."""
        runs = [line for line in self.service.log_path.read_text().splitlines() if "near-line process runs" in line]
        return int(json.loads(runs[-1])["pid"]) if runs else 0


@pytest.fixture(scope="module")
def running(triton_server: RunningTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("nearline")
    world = make_small_world(directory / "world", encode=TextEncoder(encoder.default_path()).encode)
    spec = _interest_gpt(directory / "interest_gpt", world)
    build = directory / "build"
    snapshot = write_nearline_snapshot(world, build / "snapshots", spec, without_interests=world.user_ids)
    towers = directory / "towers"
    towers.mkdir()
    for suffix in (".pt2", ".onnx"):
        shutil.copy(world.tower_path.with_suffix(suffix), towers)
    shutil.copy(snapshot / layout.ITEM_VECTORS, towers)
    (towers / "tower.json").write_text(json_format.MessageToJson(world.tower))
    deployment.place(USER_TOWER, towers, triton_server.models_dir)
    deployment.place(TEXT_ENCODER, encoder.default_path(), triton_server.models_dir)
    deployment.place(INTEREST_GPT, directory / "interest_gpt", triton_server.models_dir)
    deployment.load(triton_server.grpc_url, user_tower(world.tower, DIM))
    deployment.load(triton_server.grpc_url, TEXT_ENCODER.trained(encoder.default_path(), AS_CHECKED_IN))
    deployment.load(triton_server.grpc_url, interest_gpt(spec))
    Publications(build / "snapshots").publish(snapshot.name)
    # This machine may be busy, and a late tower would be a degraded answer.
    deadlines = {"default_deadline_ms": "30000", "max_deadline_ms": "30000"}
    options = {"clock": "snapshot", "nearline_poll_seconds": "0.05", **deadlines}
    with launch_service(build, triton_server.url, options=options) as service:
        yield Running(world, build, service, spec)


def _interest_gpt(directory: Path, world: SmallWorld) -> records_pb2.InterestGptSpec:
    """A model of random weights that may answer with the world's categories."""
    make_tiny_interest_gpt(directory)
    (directory / model.CATEGORIES).write_text(json.dumps(world.catalogue.categories), encoding="utf-8")
    spec = write_spec(
        directory,
        style="compact",
        max_new_tokens=MAX_NEW_TOKENS,
        max_prompt_tokens=MAX_POSITIONS - MAX_NEW_TOKENS,
        max_batch=16,
    )
    spec.taxonomy_hash = world.contents.taxonomy_hash
    (directory / model.SPEC).write_text(json_format.MessageToJson(spec), encoding="utf-8")
    return spec


def own_interests(result: RecallResult) -> list[str]:
    """The latent interests an answer was searched by, as its reasons name them."""
    return [reason.latent_interest for reason in result.message.reasons if reason.latent_interest]


async def first_served(client: AsyncSerendipityClient, users: list[str]) -> tuple[str, RecallResult]:
    """Recall users again and again until one of them is answered by interests."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for user_id in users:
                result = await client.recall(user_id, count=20, explain=True)
                if own_interests(result):
                    return user_id, result
            await asyncio.sleep(0.1)


async def test_who_has_no_interests_is_queued_refreshed_and_then_served_by_them(running: Running) -> None:
    users = running.world.user_ids[:10]
    async with AsyncSerendipityClient(running.service.address, timeout=10.0) as client:
        for user_id in users:
            assert own_interests(await client.recall(user_id, count=20, explain=True)) == []
        user_id, result = await first_served(client, users)
    clicked = {running.world.catalogue.categories[c - 1] for c in running.world.clicks(user_id).categories.tolist()}
    (interest,) = set(own_interests(result))
    assert interest in running.world.catalogue.categories
    assert interest not in clicked
    by_interest = [candidate for candidate in result.candidates if candidate.source == "interest"]
    # The rest of them an open search found near the user with the interest in mind.
    assert interest in {candidate.category for candidate in by_interest}
    assert all(candidate.features["novel"] for candidate in result.candidates)


async def test_the_near_line_process_is_restarted_when_killed_and_goes_on(running: Running) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (killed := running.nearline_pid):
            await asyncio.sleep(0.05)
    os.kill(killed, signal.SIGKILL)
    users = running.world.user_ids[20:35]
    async with AsyncSerendipityClient(running.service.address, timeout=10.0) as client:
        user_id, _ = await first_served(client, users)
        # The workers never noticed.
        assert not (await client.recall(user_id, count=20)).degraded
    assert running.nearline_pid not in (0, killed)
    assert "process died" in running.service.log_path.read_text()
