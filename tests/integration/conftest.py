"""Real servers for the integration tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from serendipity.tools.serving.triton_server import TritonServer, launch


@dataclass(frozen=True)
class RunningTriton:
    """A tritonserver with EXPLICIT model control. models_dir: its repository; url, grpc_url: of HTTP and of gRPC."""

    server: TritonServer
    models_dir: Path

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def grpc_url(self) -> str:
        return self.server.grpc_url

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop the process, its connections left open: whatever is asked meanwhile waits until it goes on."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, self.server.pid, os.WSTOPPED)
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """One tritonserver for the whole run, its repository empty at first.

    Tests place models of their own names into `models_dir` and load them; they neither stop the server nor unload
    what they have not loaded.
    """
    models_dir = tmp_path_factory.mktemp("models")
    log_path = tmp_path_factory.mktemp("triton") / "tritonserver.log"
    with launch(models_dir, log_path=log_path) as server:
        yield RunningTriton(server, models_dir)
