"""The command that serves a model repository: a real tritonserver, ports chosen free."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from serendipity.tools.triton import model_names
from serendipity.triton import ask
from tests.fixtures.echo_model import write_echo_model

pytestmark = pytest.mark.integration


@contextmanager
def serving(tmp_path: Path, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `serendip triton` on tmp_path/models; what it says on both streams is on one."""
    options = ["--models", str(tmp_path / "models"), "--log", str(tmp_path / "log")]
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "serendipity.tools.cli", "triton", *options, *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def status_after_sigterm(process: subprocess.Popen[str]) -> int:
    process.terminate()
    return process.wait(timeout=30)


def line_with(pattern: str, process: subprocess.Popen[str]) -> re.Match[str]:
    """Read on to the next line that holds it."""
    assert process.stdout
    read = []
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
        read.append(line)
    raise AssertionError(f"found {read}, expected a line with {pattern}")


def test_every_model_that_loads_is_served(tmp_path: Path) -> None:
    write_echo_model(tmp_path / "models", "echo")
    write_echo_model(tmp_path / "models", "broken", first_line="raise ValueError('no weights here')")
    (tmp_path / "models" / ".placing" / "1").mkdir(parents=True)
    with serving(tmp_path) as process:
        address = line_with(r"gRPC (\S+),", process)[1]
        assert line_with(r"serendip triton: warning: tritonserver 2\.51\.0 is for demos and tests, over HTTP", process)
        assert line_with("serendip triton: broken: not loaded: ", process)
        assert line_with("loaded echo$", process)
        with triton_grpc.InferenceServerClient(address) as client:
            assert client.is_model_ready("echo")
            assert not client.is_model_ready("broken")
        assert status_after_sigterm(process) == 0


def test_a_server_that_was_killed_is_back_where_it_was_and_ends_with_its_launcher(tmp_path: Path) -> None:
    write_echo_model(tmp_path / "models", "echo")
    write_echo_model(tmp_path / "models", "user_tower_1")
    with serving(tmp_path) as process:
        first = line_with(r"pid (\d+)\): HTTP (\S+),", process)
        line_with("loaded echo$", process)
        os.kill(int(first[1]), signal.SIGKILL)
        line_with(rf"pid {first[1]}\) was ended by SIGKILL; last lines of .*; starting it again in 1 s$", process)
        second = line_with(r"pid (\d+)\): HTTP (\S+),", process)
        assert second[2] == first[2]
        line_with("loaded user_tower_1$", process)
        five = {"x": np.array([5], np.int32)}
        answer = ask(second[2], 30.0, lambda client: client.infer("user_tower_1", five, ["y"], 30.0))
        assert answer["y"].tolist() == [5]

        server = os.pidfd_open(int(second[1]))
        process.kill()
        # Readable once the process has ended.
        assert select.select([server], [], [], 20.0)[0]
        os.close(server)


def test_a_server_that_dies_again_and_again_is_started_ever_later_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "tritonserver").write_text("#!/bin/sh\necho no memory left\nexit 3\n")
    (tmp_path / "tritonserver").chmod(0o755)
    with serving(tmp_path, {"PATH": f"{tmp_path}:{os.environ['PATH']}"}) as process:
        for seconds in (1, 2):
            line_with(rf"ended with status 3; last lines of .*: no memory left.* in {seconds} s$", process)
        assert status_after_sigterm(process) == 0


def test_a_repository_that_is_not_there_ends_the_command_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        line_with("serendip triton: .*models: not a directory; expected a Triton model repository$", process)
        assert process.wait(timeout=10) == 1


def test_user_towers_are_loaded_first_and_of_them_the_one_placed_last(tmp_path: Path) -> None:
    for name, placed_at in {"text_encoder": 4, "user_tower_a": 2, "group_encoder": 1, "user_tower_b": 3}.items():
        write_echo_model(tmp_path, name)
        os.utime(tmp_path / name / "config.pbtxt", (placed_at, placed_at))
    (tmp_path / ".placing" / "1").mkdir(parents=True)
    assert model_names(tmp_path) == ["user_tower_b", "user_tower_a", "group_encoder", "text_encoder"]
