"""Models that do not answer are loaded again, whatever their server calls them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import ProcessTree
from serendipity.tools.serving.canary import CANARY, keep_answering, question_of, request_of
from serendipity.tools.serving.deployment import place
from serendipity.tools.serving.kinds import USER_TOWER
from serendipity.tools.serving.triton_program import TritonDown
from serendipity.tools.serving.triton_server import TritonServer, launch
from serendipity.triton import Triton, TritonError
from tests.fixtures.example_tower import Training


def stubs_of(server: TritonServer) -> list[int]:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ProcessTree.of(server.pid).pids}
    return [pid for pid, command in commands.items() if b"python_backend_stub" in command]


def test_a_question_is_read_as_it_was_written() -> None:
    question = {
        "x": np.array([[5]], np.int32),
        "prompt": np.array([["Grüße".encode()]], np.object_),
        "interests": np.full((1, 2, 3), 0.5, np.float16),
        "none": np.zeros((1, 0, 3), np.float16),
    }
    read = question_of(request_of(question).encode())
    assert read.keys() == question.keys()
    for name, values in question.items():
        assert (read[name].dtype, read[name].shape) == (values.dtype, values.shape)
        assert (read[name] == values).all()


@pytest.mark.integration
async def test_a_tower_whose_processes_were_killed_is_loaded_again_and_a_server_that_ended_is_told(
    training: Training, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = place(USER_TOWER, training.directory, tmp_path)
    question = question_of((tmp_path / name / CANARY).read_bytes())
    server = launch(tmp_path)
    triton = Triton(server.url)

    async def answers() -> bool:
        try:
            return bool(await triton.infer(name, question, (), 5.0))
        except TritonError:
            return False

    try:
        await triton.request(f"POST /v2/repository/models/{name}/load", b"{}", 120.0)
        assert await answers()
        watching = asyncio.create_task(keep_answering(server, tmp_path))
        for stub in stubs_of(server):
            os.kill(stub, signal.SIGKILL)
        async with asyncio.timeout(120):
            while f"loaded {name}" not in capfd.readouterr().out:
                await asyncio.sleep(0.1)
        assert await answers()
        assert not watching.done()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(TritonDown, match="was ended by SIGKILL"):
            await asyncio.wait_for(watching, 60)
    finally:
        await triton.close()
        server.stop()
