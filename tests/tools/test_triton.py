"""The command that serves a model repository: a real tritonserver, ports chosen free."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc

from tests.fixtures.echo_model import write_echo_model

pytestmark = pytest.mark.integration


def test_the_command_serves_every_model_that_loads_and_ends_at_sigterm(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_echo_model(models, "echo")
    write_echo_model(models, "broken", first_line="raise ValueError('no weights here')")
    (models / ".placing" / "1").mkdir(parents=True)
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "serendipity.tools.cli", "triton", "--models", str(models), *ports]
    with subprocess.Popen(
        [*command, "--log", str(tmp_path / "log")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stderr
            address = re.search(r"gRPC (\S+),", process.stdout.readline())
            assert address
            assert process.stdout.readline() == "loaded echo\n"
            assert "serendip triton: broken: not loaded: " in process.stderr.readline()
            client = triton_grpc.InferenceServerClient(address[1])
            assert client.is_model_ready("echo")
            assert not client.is_model_ready("broken")
            client.close()
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
