"""Launching tritonserver: real processes, ports chosen free."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc

from serendipity.tools.serving import triton_server
from serendipity.tools.serving.triton_program import TritonError, TritonProgram
from tests.fixtures.echo_model import write_echo_model

pytestmark = pytest.mark.integration


def members_of_group(group: int) -> list[int]:
    listing = subprocess.run(["ps", "-e", "-o", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, pgid in map(str.split, listing.splitlines()) if int(pgid) == group]


def test_a_launched_server_is_ready_on_the_loopback_address_and_gone_after_the_block(tmp_path: Path) -> None:
    with triton_server.launch(tmp_path, log_path=tmp_path / "log") as server:
        assert server.url == f"127.0.0.1:{server.http_port}"
        assert server.is_running()
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        assert client.is_server_ready()
        assert list(client.get_model_repository_index().models) == []
        client.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as response:
            assert b"nv_" in response.read()
    assert not server.is_running()
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)
    assert not list(Path("/dev/shm").glob(f"{server.shared_memory_prefix}*"))


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    server = triton_server.launch(tmp_path, log_path=tmp_path / "log")
    server.stop()
    server.stop()
    assert not server.is_running()


def test_a_server_that_was_killed_is_reported_and_its_stubs_and_memory_are_cleared_away(tmp_path: Path) -> None:
    write_echo_model(tmp_path, "echo")
    with triton_server.launch(tmp_path, log_path=tmp_path / "log") as server:
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        client.load_model("echo")
        assert list(Path("/dev/shm").glob(f"{server.shared_memory_prefix}*"))
        stubs = [os.pidfd_open(pid) for pid in members_of_group(server.pid) if pid != server.pid]
        assert stubs
        dead = os.pidfd_open(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        assert select.select([dead], [], [], 10.0)[0]
        os.close(dead)
        with pytest.raises(TritonError, match=rf"pid {server.pid}\) was ended by SIGKILL; last lines of .*log"):
            server.check()
        with pytest.raises(triton_grpc.InferenceServerException):
            client.is_model_ready("echo", client_timeout=1.0)
        client.close()
    for stub in stubs:
        # Readable once the process has ended.
        assert select.select([stub], [], [], 10.0)[0]
        os.close(stub)
    assert not list(Path("/dev/shm").glob(f"{server.shared_memory_prefix}*"))


def test_a_server_that_dies_at_the_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(TritonError, match=r"(?s)ended with status 1; last lines of .*failed to load all models"):
        triton_server.launch(tmp_path, log_path=tmp_path / "log", arguments=["--load-model=absent"])


def test_a_server_that_never_gets_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = tmp_path / "tritonserver"
    sleeper.write_text("#!/bin/sh\necho starting $$\nexec sleep 600\n")
    sleeper.chmod(0o755)
    start = triton_server._start

    def start_and_hear(*arguments: Any) -> triton_server.TritonServer:
        """Give the shell the time that it takes to say so: the server's time to get ready begins after that."""
        server = start(*arguments)
        while server.is_running() and not server.log_path.read_text().endswith("\n"):
            time.sleep(0.01)
        return server

    monkeypatch.setattr(triton_server, "_start", start_and_hear)
    with pytest.raises(TritonError, match=r"(?s)not ready in time.*starting") as caught:
        triton_server.launch(tmp_path, log_path=tmp_path / "log", program=TritonProgram(sleeper, {}), start_timeout=0.2)
    found = re.search(r"starting (\d+)", str(caught.value))
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(TritonError, match=f"port {port} on 127.0.0.1 is taken"):
            triton_server.launch(tmp_path, http_port=port)


def test_a_repository_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TritonError, match="absent: not a directory; expected a Triton model repository"):
        triton_server.launch(tmp_path / "absent")


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(TritonError, match=r"failed to execute .*tritonserver: No such file"):
        triton_server.launch(tmp_path, log_path=tmp_path / "log", program=TritonProgram(tmp_path / "tritonserver", {}))
