"""A running worker in this process, on free ports, over a copy of the small world."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.worker import Worker, running_worker
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.publication import Publications
from tests.fixtures.small_world import SmallWorld

NO_TRITON = "127.0.0.1:1"
"""An address nothing listens on: answers come from the stored user vectors."""


def copy_snapshot(world: SmallWorld, snapshots: Path, version: str) -> Path:
    """Place the world's snapshot under another version, whole and with right checksums."""
    directory = snapshots / version
    shutil.copytree(world.snapshot_dir, directory, ignore=shutil.ignore_patterns("lock.mdb"))
    manifest = layout.read_manifest(directory)
    manifest.version = version
    layout.write_manifest(directory, manifest)
    return directory


def damage(directory: Path) -> None:
    """Flip one byte of the item vectors, as a bad disk would."""
    path = directory / layout.ITEM_VECTORS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def server_settings(directory: Path, **changes: object) -> ServerSettings:
    """Settings of a service below a directory, on free loopback ports, looking at what it watches often."""
    return ServerSettings.model_validate(
        {
            "snapshots": directory / "snapshots",
            "state": directory / "state",
            "address": "127.0.0.1:0",
            "admin_address": "127.0.0.1:0",
            "metrics_port": 0,
            "snapshot_poll_seconds": 0.05,
            "require_ready_model": False,
            # What tests record is of the small world's time: the worker must not find it too old to keep.
            "feedback_retention_days": 36_500.0,
            **changes,
        }
    )


def channel_settings(**changes: object) -> ChannelSettings:
    """Settings of a pipeline that lives when the small world does, on a machine that may be busy."""
    return ChannelSettings.model_validate(
        {
            "clock": "snapshot",
            "triton_url": NO_TRITON,
            "default_deadline_ms": 30_000.0,
            "max_deadline_ms": 30_000.0,
            **changes,
        }
    )


@contextlib.asynccontextmanager
async def service(
    settings: ServerSettings, pipeline: ChannelSettings
) -> AsyncIterator[tuple[AsyncSerendipityClient, Worker]]:
    """A worker and a client of it."""
    async with (
        running_worker(settings, pipeline) as worker,
        AsyncSerendipityClient(f"127.0.0.1:{worker.port}", timeout=30.0) as client,
    ):
        yield client, worker


def publish(directory: Path, version: str) -> None:
    """Make a version the wanted one."""
    Publications(directory / "snapshots").publish(version)


@contextlib.contextmanager
def hung_triton() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def scrape(text: str, name: str) -> dict[str, float]:
    """Values of a metric by its labels, as Prometheus's text writes them."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.rpartition(" ")
        if key == name or key.startswith(name + "{"):
            found[key[len(name) :]] = float(value)
    return found


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def metrics(worker: Worker) -> str:
    """A worker's metrics as it shows them."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.metrics_port}/metrics") as response:
            return str(response.read().decode())

    return await asyncio.to_thread(get)
