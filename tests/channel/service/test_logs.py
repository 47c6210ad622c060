"""Logs are JSON lines with the ids bound on the request's way, few where they repeat, and hold nothing up."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from serendipity.channel.service.logs import LineHandler

_SET_UP = """
import logging, structlog, threading
from serendipity.channel.service.logs import configure_logs
configure_logs("info", "json")
"""
_LOGGING = """
with structlog.contextvars.bound_contextvars(request_id="r-1"):
    structlog.stdlib.get_logger("ours").info("answered", candidates=3)
    logging.getLogger("theirs").warning("%s is slow", "triton")
    structlog.stdlib.get_logger("ours").debug("not written")
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("theirs").exception("broken")
"""
_REPEATING = """
for number in range(1_000):
    structlog.stdlib.get_logger("ours").warning("call refused", code="INVALID_ARGUMENT", error=f"no {number}")
structlog.stdlib.get_logger("ours").warning("call refused", code="UNAVAILABLE", error="another")
"""
_UNCAUGHT = """
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
{}["nothing"]
"""


def lines_of(script: str, status: int = 0) -> list[dict[str, object]]:
    finished = subprocess.run([sys.executable, "-c", _SET_UP + script], capture_output=True, text=True, check=False)
    assert finished.returncode == status
    return [json.loads(line) for line in finished.stderr.splitlines()]


def test_logs_of_ours_and_of_libraries_are_json_lines_with_the_request_id() -> None:
    ours, theirs, broken = lines_of(_LOGGING)
    assert (ours["event"], ours["candidates"], ours["level"], ours["logger"]) == ("answered", 3, "info", "ours")
    assert (theirs["event"], theirs["level"]) == ("triton is slow", "warning")
    assert "ZeroDivisionError" in str(broken["exception"])
    assert {line["request_id"] for line in (ours, theirs, broken)} == {"r-1"}


def test_warnings_that_repeat_are_a_few_lines_and_one_that_counts_the_others() -> None:
    *written, other, last = lines_of(_REPEATING)
    assert [line["error"] for line in written] == [f"no {number}" for number in range(5)]
    assert other["error"] == "another"
    assert (last["error"], last["repeated"]) == ("no 999", 995)


def test_what_goes_on_repeating_is_one_line_each_time() -> None:
    reader, writer = os.pipe()
    now = 0.0
    handler = LineHandler(writer, clock=lambda: now)
    for second in range(60):
        now = float(second)
        handler.handle(a_line("cannot be opened", logging.WARNING))
    handler.flush()
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        # After each ten seconds but the last, of which nothing has been told yet.
        assert len(lines.readlines()) == 5 + 5


def test_what_nobody_caught_is_a_json_line_too() -> None:
    of_thread, of_process = lines_of(_UNCAUGHT, status=1)
    assert (of_thread["event"], of_process["event"]) == ("uncaught", "uncaught")
    assert "ZeroDivisionError" in str(of_thread["exception"])
    assert "KeyError" in str(of_process["exception"])


def a_line(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("ours", level, "", 0, text, None, None)


def test_a_reader_that_stalls_holds_nothing_up_and_is_told_what_it_missed() -> None:
    reader, writer = os.pipe()
    handler = LineHandler(writer, capacity=100)
    # Far more than a pipe holds.
    for number in range(10_000):
        handler.handle(a_line(f"{number:0200d}"))
    handler.flush()
    written = dropped = 0
    with os.fdopen(reader, encoding="utf-8") as lines:
        while written + dropped < 10_000:
            line = lines.readline()
            told = line.startswith("log lines dropped: ")
            written += not told
            dropped += int(line.rpartition(" ")[2]) if told else 0
    assert written + dropped == 10_000
    assert dropped > 9_000
    os.close(writer)


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    handler = LineHandler(full)
    for number in range(10):
        handler.handle(a_line(str(number)))
        handler.flush()
    # Space again, where the descriptor is.
    path = tmp_path / "log"
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), full)
    handler.handle(a_line("written"))
    handler.flush()
    assert path.read_text().splitlines() == ["written", "log lines dropped: 10"]
