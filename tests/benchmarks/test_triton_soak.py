"""The soak of Triton: the real tritonserver, clients that are killed, a connection that is cut."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from benchmarks import triton_soak
from serendipity import layout
from serendipity.tools.serving.triton_server import TritonServer, launch
from tests.fixtures.small_world import SmallWorld

pytestmark = pytest.mark.integration


@pytest.fixture
def build(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A build of the small world, published."""
    shutil.copytree(small_world.snapshots_root, tmp_path / "snapshots")
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to(small_world.version)
    (tmp_path / "towers").symlink_to(small_world.tower_path.parent)
    return tmp_path


def test_one_command_soaks_and_reports(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    arguments = ["--build", str(build), "--calls", "64", "--kills", "1", "--out", str(report)]
    assert triton_soak.main(arguments) == 0
    text = report.read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    rows = dict(line.strip("| ").split(" | ") for line in text.splitlines() if " | " in line.strip("| "))
    assert sum(int(rows.get(f"… {outcome}", "0")) for outcome in ("answered", "given up")) == 64
    assert int(rows["requests that reached Triton meanwhile"]) > 0
    assert int(rows["32 connections cut without closing: calls of 100 ms lost, 4 at once"]) >= 4
    assert rows["deaths of Triton"] == "0"


def test_a_triton_that_dies_is_the_result(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = []

    def launch_and_remember(repository: Path) -> TritonServer:
        servers.append(launch(repository))
        return servers[0]

    def crash(*_: object) -> None:
        os.kill(servers[0].pid, signal.SIGSEGV)
        while servers[0].is_running():
            os.sched_yield()

    monkeypatch.setattr(triton_soak, "launch", launch_and_remember)
    monkeypatch.setattr(triton_soak, "load", crash)
    assert triton_soak.main(["--build", str(build), "--calls", "1", "--kills", "1"]) == 1
    assert "was ended by SIGSEGV" in capsys.readouterr().err
