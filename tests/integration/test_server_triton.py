"""The channel's server with a real Triton behind it: whole answers, and models checked before publishing."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from google.protobuf import json_format

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.service.readiness import model_answers
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools.serving import deployment
from serendipity.tools.serving.kinds import USER_TOWER, user_tower
from tests.channel.served import channel_settings, copy_snapshot, server_settings, service
from tests.fixtures.small_world import DIM, SmallWorld
from tests.integration.conftest import RunningTriton

pytestmark = pytest.mark.integration


async def test_a_snapshot_is_published_once_its_model_answers_and_answers_are_whole(
    triton_server: RunningTriton, small_world: SmallWorld, tmp_path: Path
) -> None:
    directory = copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    manifest = layout.read_manifest(copy_snapshot(small_world, tmp_path / "snapshots", "v2"))
    manifest.tower.model_name = "user_tower_nobody_deployed"
    layout.write_manifest(tmp_path / "snapshots" / "v2", manifest)
    towers = tmp_path / "towers"
    towers.mkdir()
    for suffix in (".pt2", ".onnx"):
        shutil.copy(small_world.tower_path.with_suffix(suffix), towers)
    shutil.copy(directory / layout.ITEM_VECTORS, towers)
    (towers / "tower.json").write_text(json_format.MessageToJson(small_world.tower))
    deployment.place(USER_TOWER, towers, triton_server.models_dir)
    deployment.load(triton_server.grpc_url, user_tower(small_world.tower, DIM))

    publications = Publications(tmp_path / "snapshots", checks=[model_answers(triton_server.url)])
    await asyncio.to_thread(publications.publish, "v1")
    with pytest.raises(PublicationRefused, match="user_tower_nobody_deployed does not answer"):
        await asyncio.to_thread(publications.publish, "v2")
    assert publications.wanted() == "v1"

    # Generous deadlines: this machine may be busy, and a late tower would be a degraded answer.
    pipeline = channel_settings(triton_url=triton_server.url, default_deadline_ms=10_000, max_deadline_ms=10_000)
    async with service(server_settings(tmp_path), pipeline) as (client, _):
        for user in (*small_world.user_ids[:5], small_world.cold_user_id):
            result = await client.recall(user, count=20, explain=True)
            assert not result.degraded, result.degraded_reasons
            assert result.message.versions.user_tower == small_world.tower.model_name
            assert len(result.candidates) == 20
            assert all(candidate.features["novel"] for candidate in result.candidates)
