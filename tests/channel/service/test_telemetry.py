"""Logs are JSON with the ids bound on the request's way, metrics are served, settings are checked."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from pydantic import ValidationError

from serendipity.channel.errors import PublicationRefused
from serendipity.channel.service.readiness import model_is_ready
from serendipity.channel.service.settings import ServerSettings, split_address
from serendipity.channel.service.telemetry import Telemetry
from serendipity.v1 import records_pb2
from tests.channel.served import NO_TRITON, scrape

_LOGGING = """
import logging, structlog
from serendipity.channel.service.telemetry import configure_logs
configure_logs("info", "json")
with structlog.contextvars.bound_contextvars(request_id="r-1"):
    structlog.stdlib.get_logger("ours").info("answered", candidates=3)
    logging.getLogger("theirs").warning("%s is slow", "triton")
    structlog.stdlib.get_logger("ours").debug("not written")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("theirs").exception("broken")
"""


def test_logs_of_ours_and_of_libraries_are_json_lines_with_the_request_id() -> None:
    finished = subprocess.run([sys.executable, "-c", _LOGGING], capture_output=True, text=True, check=True)
    ours, theirs, broken = map(json.loads, finished.stderr.splitlines())
    assert (ours["event"], ours["candidates"], ours["level"], ours["logger"]) == ("answered", 3, "info", "ours")
    assert (theirs["event"], theirs["level"]) == ("triton is slow", "warning")
    assert "ZeroDivisionError" in broken["exception"]
    assert {line["request_id"] for line in (ours, theirs, broken)} == {"r-1"}


def test_metrics_are_served_until_closed() -> None:
    server = Telemetry().serve("127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        assert scrape(response.read().decode(), "serendipity_requests_in_flight") == {"": 0.0}
    server.close()


def test_a_shard_outside_the_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="shard: found 2, expected less than num_shards, which is 2"):
        ServerSettings(snapshots=tmp_path, state=tmp_path, shard=2, num_shards=2)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SERENDIPITY_WORKERS", "7")
    monkeypatch.setenv("SERENDIPITY_STATE", str(tmp_path))
    settings = ServerSettings(snapshots=tmp_path)  # type: ignore[call-arg]
    assert settings.workers == 7
    assert settings.feedback_path == tmp_path / "feedback"


@pytest.mark.parametrize(
    ("address", "found"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("host:65535", ("host", 65535))],
)
def test_addresses_are_split(address: str, found: tuple[str, int]) -> None:
    assert split_address(address) == found


@pytest.mark.parametrize("address", ["", "host", ":80", "host:port", "host:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        split_address(address)


def test_a_snapshot_whose_model_nobody_serves_is_not_published() -> None:
    manifest = records_pb2.Manifest(version="v1")
    manifest.tower.model_name = "user_tower_0"
    with pytest.raises(PublicationRefused, match=f"v1: Triton at {NO_TRITON} cannot be asked for user_tower_0"):
        model_is_ready(NO_TRITON, timeout=1.0)(manifest, None)
