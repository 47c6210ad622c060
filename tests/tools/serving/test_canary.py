"""Models that do not answer are loaded again, whatever their server calls them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import ProcessTree
from serendipity.tools.serving.canary import CANARY, keep_answering, request_of
from serendipity.tools.serving.triton_program import TritonDown
from serendipity.tools.serving.triton_server import TritonServer, launch
from serendipity.triton import Triton, TritonError
from tests.fixtures.echo_model import write_echo_model

_FIVE = {"x": np.array([[5]], np.int32)}


def stubs_of(server: TritonServer) -> list[int]:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ProcessTree.of(server.pid).pids}
    return [pid for pid, command in commands.items() if b"python_backend_stub" in command]


def test_a_question_is_written_as_triton_reads_it() -> None:
    question = request_of({"x": np.array([[5]], np.int32), "prompt": np.array([[b"hello"]], np.object_)})
    assert json.loads(question) == {
        "inputs": [
            {"name": "x", "shape": [1, 1], "datatype": "INT32", "data": [5]},
            {"name": "prompt", "shape": [1, 1], "datatype": "BYTES", "data": ["hello"]},
        ]
    }


@pytest.mark.integration
async def test_a_model_whose_processes_were_killed_is_loaded_again_and_a_server_that_ended_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_echo_model(tmp_path / "models", "user_tower_1")
    with (tmp_path / "models" / "user_tower_1" / "config.pbtxt").open("a") as configuration:
        configuration.write("max_batch_size: 4\n")
    (tmp_path / "models" / "user_tower_1" / CANARY).write_text(request_of(_FIVE))
    server = launch(tmp_path / "models")
    triton = Triton(server.url)

    async def answers() -> bool:
        try:
            return (await triton.infer("user_tower_1", _FIVE, ["y"], 5.0))["y"].item() == 5
        except TritonError:
            return False

    try:
        await triton.request("POST /v2/repository/models/user_tower_1/load", b"{}", 120.0)
        assert await answers()
        watching = asyncio.create_task(keep_answering(server, tmp_path / "models"))
        (stub,) = stubs_of(server)
        os.kill(stub, signal.SIGKILL)
        async with asyncio.timeout(120):
            while "loaded user_tower_1" not in capfd.readouterr().out:
                await asyncio.sleep(0.1)
        assert await answers()
        assert not watching.done()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(TritonDown, match="was ended by SIGKILL"):
            await asyncio.wait_for(watching, 60)
    finally:
        await triton.close()
        server.stop()
