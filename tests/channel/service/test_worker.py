"""A worker process, before it serves."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import pytest
from structlog.testing import capture_logs

from serendipity.channel.service.worker import warn_of_old_events
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Snapshot

_THREADS = """
import numpy, faiss
from threadpoolctl import threadpool_info
from serendipity.channel.service import worker
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings

async def say(*_):
    print(sorted({pool["num_threads"] for pool in threadpool_info()}))

worker._serve_until_stopped = say
worker.run_worker(ServerSettings(snapshots="snapshots", state="state"), ChannelSettings(), 0)
"""


def test_a_worker_runs_blas_and_openmp_on_one_thread_each() -> None:
    # In a process of its own: the limit holds for the whole of it.
    said = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[1]"


@pytest.mark.parametrize(("clock", "days", "said"), [("wall", 31, True), ("wall", 29, False), ("snapshot", 31, False)])
def test_interests_that_are_all_too_old_are_said_when_a_snapshot_is_opened(
    snapshot: Snapshot, clock: Literal["wall", "snapshot"], days: int, said: bool
) -> None:
    settings = ChannelSettings(clock=clock, interest_hard_age_days=30)
    with capture_logs() as lines:
        warn_of_old_events(snapshot, settings, snapshot.events_until + days * 86_400)
    assert [(line["log_level"], line["days_since_its_events"]) for line in lines] == (
        [("warning", days)] if said else []
    )
