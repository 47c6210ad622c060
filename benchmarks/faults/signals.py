"""What the metrics of a service tell of a fault, beside the calls that hosts lose."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from serendipity.channel.service.worker_status import read_statuses

_LOOK_SECONDS = 0.5
_COUNTERS = (
    r'serendipity_process_restarts_total\{cause="\w+"',
    r'serendipity_refusals_total\{error="\w+"',
    r'serendipity_degraded_reasons_total\{part="[^"]+"',
    r"serendipity_serving_log_dropped_total",
    r"serendipity_log_lines_dropped_total",
    r'serendipity_snapshot_swaps_total\{outcome="\w+"',
    r'serendipity_user_tower_call_seconds_count\{status="(?!OK)\w+"',
)
"""Told of once they grow."""
_GAUGES: dict[str, Callable[[float], bool]] = {
    "serendipity_process_up": lambda value: value == 0,
    "serendipity_store_open": lambda value: value == 0,
    "serendipity_user_tower_held_back": lambda value: value == 1,
    # Of a process without connections they are some sixty.
    "process_open_fds": lambda value: value > 150,
}
"""Told of while they are what nobody wants to see."""
_COUNTED = re.compile("|".join(_COUNTERS))


class Signals:
    """Looks at the metrics of workers and supervisor twice a second, while its context lasts.

    state: of the service; told: what they told.
    """

    def __init__(self, state: Path) -> None:
        self.told: set[str] = set()
        self._state = state
        self._first: dict[tuple[int, str], float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        begun = not self._first
        for port in self._ports():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_LOOK_SECONDS) as shown:
                    text = shown.read().decode()
            except OSError:
                self.told.add("a process without metrics (up 0)")
                continue
            for line in text.splitlines():
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                if (found := _COUNTED.match(series)) and name:
                    # Of a process that was started again all that it counted is of the fault.
                    first = self._first.setdefault((port, series), float(value) if begun else 0.0)
                    if float(value) > first:
                        self.told.add(f"{found[0]}{'}' if '{' in found[0] else ''}")
                elif name in _GAUGES and _GAUGES[name](float(value)):
                    self.told.add(name)

    def _ports(self) -> Iterator[int]:
        yield from (status.metrics_port for status in read_statuses(self._state / "workers") if status.version)
        try:
            yield json.loads((self._state / "endpoints.json").read_text())["metrics_port"]
        except (OSError, ValueError):
            return
