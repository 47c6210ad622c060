"""A worker process, before it serves."""

from __future__ import annotations

import subprocess
import sys

_THREADS = """
import numpy, faiss
from threadpoolctl import threadpool_info
from serendipity.channel.service import worker
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings

async def say(*_):
    print(sorted({pool["num_threads"] for pool in threadpool_info()}))

worker._serve_until_stopped = say
worker.run_worker(ServerSettings(snapshots="snapshots", state="state"), ChannelSettings(), "127.0.0.1:0", 0)
"""


def test_a_worker_runs_blas_and_openmp_on_one_thread_each() -> None:
    # In a process of its own: the limit holds for the whole of it.
    said = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[1]"
