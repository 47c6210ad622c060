"""Logs of one process: JSON lines on standard error, or lines for a person, and nothing that they can hold up."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import structlog

from serendipity.channel.state.batch_writer import BatchWriter

_CAPACITY = 10_000
"""Lines that may wait for whoever reads them; more are dropped and counted."""
_AT_ONCE = 5
_INTERVAL = 10.0
"""Of warnings and errors of one kind so many lines are written within so many seconds, and the others counted. While it
goes on so, one line is written each time."""
_FLUSH_SECONDS = 1.0

_Kind = tuple[str, int, str, str, str]
_log = structlog.stdlib.get_logger(__name__)


def configure_logs(level: str, form: Literal["json", "console"]) -> None:
    """Send this process's logs to standard error: those of libraries, of warnings and of uncaught errors as well.

    What structlog.contextvars binds (request_id, worker) stands in every line written on the request's way.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ExtraAdder(["repeated"]),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = LineHandler(sys.stderr.fileno())
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda died: _log_uncaught(died.exc_type, died.exc_value, died.exc_traceback)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


@dataclass
class _Repeated:
    """Lines of one kind since a moment. last: of those that were held back."""

    since: float
    lines: int = 0
    last: logging.LogRecord | None = None


class LineHandler(logging.Handler):
    """Writes lines to a file descriptor in a thread of its own, so that a reader that stalls holds up nothing else.

    Lines are dropped where too many wait already or the descriptor refuses them (a full disk), and counted in a line
    that follows once one can be written. Warnings and errors that repeat are held back; the next line of any kind, some
    time later, is preceded by the last of them, which says in `repeated` how many they were.
    """

    def __init__(
        self, descriptor: int, *, capacity: int = _CAPACITY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._clock = clock
        self._kinds: dict[_Kind, _Repeated] = {}
        self._counting = threading.Lock()
        self._dropped = 0
        self.lost = 0
        """Lines that were not written, since the beginning."""
        self._writer = BatchWriter("log-writer", self._write, capacity=capacity)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line over, without waiting for anything."""
        self._tell_repetitions(_INTERVAL)
        if record.levelno >= logging.WARNING:
            seen = self._kinds.setdefault(_kind_of(record), _Repeated(self._clock()))
            seen.lines += 1
            if seen.lines > _AT_ONCE:
                seen.last = record
                return
        self._put(record)

    def flush(self) -> None:
        """Wait until all is written, or for a second."""
        self._writer.flush(_FLUSH_SECONDS)

    def close(self) -> None:
        """Tell what was held back, and wait until all is written, or for a second."""
        self._tell_repetitions(0.0)
        self.flush()
        super().close()

    def _tell_repetitions(self, seconds: float) -> None:
        """Write a line for each kind that began so long ago and of which some were held back."""
        now = self._clock()
        for kind, seen in [(kind, seen) for kind, seen in self._kinds.items() if now - seen.since >= seconds]:
            del self._kinds[kind]
            if seen.last is not None:
                seen.last.repeated = seen.lines - _AT_ONCE
                self._put(seen.last)
                self._kinds[kind] = _Repeated(now, _AT_ONCE)

    def _put(self, record: logging.LogRecord) -> None:
        try:
            taken = self._writer.put(self.format(record))
        except Exception:
            taken = False
        self._count(not taken)

    def _count(self, dropped: int) -> None:
        with self._counting:
            self._dropped += dropped
            self.lost += max(0, dropped)

    def _write(self, lines: list[str]) -> None:
        dropped = self._dropped
        if dropped:
            said = ("log lines dropped: %d", (dropped,))
            lines = [*lines, self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, *said, None))]
        content = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except OSError:
            self._count(len(lines) - bool(dropped))
        else:
            self._count(-dropped)


def _kind_of(record: logging.LogRecord) -> _Kind:
    said = record.msg if isinstance(record.msg, dict) else {"event": record.msg}
    event, method, code = (str(said.get(key, "")) for key in ("event", "method", "code"))
    return record.name, record.levelno, event, method, code


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):
        _log.critical("uncaught", exc_info=(kind, error, trace))
