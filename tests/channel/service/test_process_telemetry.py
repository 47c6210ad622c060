"""What every process shows of itself, and the supervisor of the others."""

from __future__ import annotations

import logging
import os

import pytest
from prometheus_client import generate_latest

from serendipity.channel.service.logs import LineHandler
from serendipity.channel.service.process_telemetry import CallTelemetry, ProcessTelemetry, SupervisorTelemetry
from tests.channel.served import scrape


def shown(telemetry: ProcessTelemetry, name: str) -> dict[str, float]:
    return scrape(generate_latest(telemetry.registry).decode(), name)


def test_a_process_shows_its_memory_and_its_files() -> None:
    telemetry = ProcessTelemetry()
    assert shown(telemetry, "process_resident_memory_bytes")[""] > 1e6
    assert 0 < shown(telemetry, "process_open_fds")[""] < shown(telemetry, "process_max_fds")[""]


def test_log_lines_that_were_refused_are_counted_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = os.pipe()
    os.close(read)
    handler = LineHandler(written)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    for number in range(3):
        handler.emit(logging.LogRecord("a", logging.INFO, "", 0, f"line {number}", None, None))
    handler.flush()
    lost = shown(ProcessTelemetry(), "serendipity_log_lines_dropped_total")[""]
    handler.close()
    os.close(written)
    assert lost == 3


def test_restarts_are_counted_from_zero_on_by_their_cause() -> None:
    telemetry = SupervisorTelemetry()
    tell = telemetry.told_of("worker-0")
    restarts = {cause: f'{{cause="{cause}",process="worker-0"}}' for cause in ("died", "hung", "not_started")}
    assert shown(telemetry, "serendipity_process_restarts_total") == dict.fromkeys(restarts.values(), 0)
    for state, up in (("up", 1), ("died", 0), ("up", 1), ("hung", 0), ("died", 0)):
        tell(state)
        assert shown(telemetry, "serendipity_process_up") == {'{process="worker-0"}': up}
    counted = shown(telemetry, "serendipity_process_restarts_total")
    assert [counted[restarts[cause]] for cause in ("died", "hung", "not_started")] == [2, 1, 0]


def test_a_call_that_is_refused_is_counted_by_its_error_too() -> None:
    telemetry = CallTelemetry()
    with telemetry.call("Recall"):
        pass
    with telemetry.call("Recall") as call:
        call.code, call.error = "RESOURCE_EXHAUSTED", "Overloaded"
    assert shown(telemetry, "serendipity_requests_total") == {
        '{code="OK",method="Recall"}': 1,
        '{code="RESOURCE_EXHAUSTED",method="Recall"}': 1,
    }
    assert shown(telemetry, "serendipity_refusals_total") == {'{error="Overloaded",method="Recall"}': 1}
