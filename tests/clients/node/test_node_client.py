"""A client in Node, made from the protos alone, against a served channel; skipped without Node or a registry."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings, service
from tests.fixtures.small_world import SmallWorld

HERE = Path(__file__).parent
PROTOS = HERE.parents[2] / "protos"


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The client with its packages, in a place of its own."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    for name in ("package.json", "client.js"):
        shutil.copy(HERE / name, tmp_path)
    command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline"]
    # Servers of tests are on loopback and behind no proxy; a registry may be.
    environment = {name: value for name, value in os.environ.items() if name != "no_proxy"}
    installed = subprocess.run(
        [*command, "--fetch-retries=0"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(
            f"npm could not install the packages: {next(iter(installed.stderr.splitlines()), 'no reason given')}"
        )
    return tmp_path / "client.js"


async def test_a_host_in_node_needs_the_protos_alone(client: Path, small_world: SmallWorld, tmp_path: Path) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    async with service(server_settings(tmp_path), channel_settings()) as (_, worker):
        finished = await asyncio.to_thread(
            subprocess.run,
            [
                "node",
                client,
                f"127.0.0.1:{worker.port}",
                PROTOS,
                small_world.user_ids[0],
                str(small_world.contents.events_until - 60),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert finished.returncode == 0, finished.stderr
    said = json.loads(finished.stdout)

    assert said["snapshot"] == "v1"
    assert [category["name"] for category in said["categories"]] == sorted(small_world.catalogue.categories)
    assert sum(category["num_items"] for category in said["categories"]) > 0
    recalled = said["recalled"]
    assert len(recalled["item_ids"]) == len(recalled["scores"]) == len(recalled["titles"]) == 20
    assert recalled["versions"]["events_until"]["seconds"] == str(small_world.contents.events_until)
    for reason in recalled["reasons"]:
        assert reason["text"]
        assert reason["kind"].startswith("REASON_KIND_")
        assert reason["relation"].startswith("REASON_RELATION_")
        assert "UNSPECIFIED" not in reason["kind"] + reason["relation"]

    # What was clicked in this very session is no longer novel, told with the request or before it.
    assert (said["recorded"]["accepted"], said["recorded"]["rejected"]) == (1, [])
    known, stranger = said["batch"]["responses"]
    assert said["clicked"] in recalled["categories"]
    for answer in (said["hot"], known):
        assert len(answer["item_ids"]) == 20
        assert said["clicked"] not in answer["categories"]
    assert said["hot"]["warnings"] == []
    assert said["denied"] not in known["categories"]
    assert stranger["categories"] == [said["denied"]]
    assert [status["code"] for status in said["batch"]["statuses"]] == [0, 0]

    assert said["refused"]["code"] == 3
    assert "user_id" in said["refused"]["details"]
    assert len(said["refused"]["request_id"]) == 1
