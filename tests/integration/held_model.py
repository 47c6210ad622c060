"""A model under the real tritonserver whose runs can be held: what is asked meanwhile waits, however fast it is."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.conftest import RunningTriton

PATIENCE = 60.0

# The process of the model cannot be stopped instead: Triton takes one that does not answer for a second for dead.
_HOLDABLE = """

import time as _time
from pathlib import Path as _Path

_directory = _Path({directory!r})
_execute = TritonPythonModel.execute


def _execute_unless_held(self, requests):
    with (_directory / "runs").open("a") as runs:
        runs.write(f"{{len(requests)}}\\n")
    while (_directory / "hold").exists():
        _time.sleep(0.005)
    return _execute(self, requests)


TritonPythonModel.execute = _execute_unless_held
"""


@dataclass(frozen=True)
class HeldModel:
    """A model placed under `name`. directory: through which it is held, and where it writes down its runs."""

    triton: RunningTriton
    name: str
    directory: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no run of the model end before the block does. The model must have nothing to do when it begins."""
        (self.directory / "runs").write_text("")
        (self.directory / "hold").touch()
        try:
            yield
        finally:
            (self.directory / "hold").unlink()

    def runs(self) -> list[int]:
        """Requests of each run that has begun since the model was last held."""
        return [int(line) for line in (self.directory / "runs").read_text().split("\n")[:-1]]

    def wait_until_it_runs(self) -> None:
        """Wait until a run has begun: from here on what is asked waits behind it."""
        _wait(lambda: bool(self.runs()), f"{self.name} runs")

    def wait_until_waiting(self, requests: int) -> None:
        """Wait until so many requests have reached the server and wait there; one that just arrives counts already."""
        _wait(lambda: self._waiting() == requests, f"{requests} requests wait for {self.name}")

    def _waiting(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.triton.server.metrics_port}/metrics") as response:
            text = response.read().decode()
        found = re.search(rf'^nv_inference_pending_request_count{{model="{self.name}",.*}} (\d+)$', text, re.MULTILINE)
        assert found, text
        return int(found[1])


def holdable(triton: RunningTriton, name: str, directory: Path) -> HeldModel:
    """Make a model that is placed and not yet loaded one that can be held; `directory`: no other model's."""
    with (triton.models_dir / name / "1" / "model.py").open("a") as program:
        program.write(_HOLDABLE.format(directory=str(directory)))
    return HeldModel(triton, name, directory)


def _wait(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.005)
