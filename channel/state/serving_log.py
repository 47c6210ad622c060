"""The serving log: what every answer contained, for feedback credit and off-policy evaluation.

Each worker appends to files of its own, so that processes never share one:

    <directory>/<time opened, UTC>-w<worker>-p<pid>-<count>.log    ServingRecords, each preceded by its length (varint)

Answers never wait for it: records pass through a bounded queue to one writer thread, and what does not fit is dropped
and counted. A file is closed at a size, or with the first answer after an age, and then compacted, see
`serving_log_files`. A process that dies leaves at most one torn record, at the end of its last file, which readers
skip.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from google.protobuf import proto

from serendipity.channel.state.batch_writer import BatchWriter
from serendipity.channel.state.environment import make_private
from serendipity.channel.state.serving_log_files import SUFFIX
from serendipity.v1 import records_pb2

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 10.0
_GATHERING_SECONDS = 0.1


@dataclass(frozen=True)
class Rotation:
    """When files end. Bytes; seconds."""

    max_file_bytes: int = 64 << 20
    max_file_seconds: float = 3_600.0


_HOURLY = Rotation()


class ServingLog:
    """One worker's serving log.

    directory: made if missing; worker: its number; capacity: answers that may wait for the writer;
    on_drop: told how many answers were lost, to a full queue or to a disk that refuses; clock: Unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        worker: int = 0,
        rotation: Rotation = _HOURLY,
        capacity: int = 2_000,
        on_drop: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._worker = worker
        self._rotation = rotation
        self._on_drop = on_drop
        self._clock = clock
        self._file: BufferedWriter | None = None
        self._path = directory
        self._opened = 0.0
        self._files = 0
        self._resume_at = -math.inf
        self._writer = BatchWriter("serving-log-writer", self._write, capacity=capacity, interval=_GATHERING_SECONDS)

    def append(self, record: records_pb2.ServingRecord) -> bool:
        """Queue an answer without waiting; False if it was dropped."""
        taken = self._writer.put(record)
        if not taken:
            self._on_drop(1)
        return taken

    def close(self) -> None:
        """Write what waits, then close the file. May be called twice."""
        self._writer.close()
        self._close_file()

    def _write(self, batch: list[records_pb2.ServingRecord]) -> None:
        for record in batch:
            self._guarded(1, self._append, record)
        self._guarded(len(batch), self._flush)

    def _guarded(self, at_stake: int, write: Callable[..., None], *arguments: object) -> None:
        """Write; whatever is wrong, with the disk or with one answer, the writer goes on. at_stake: answers.

        Of those that were not flushed it is not known which reached the disk, so all are counted. A torn one may stand
        at the end of this file, so the next record starts another.
        """
        try:
            write(*arguments)
        except OSError as error:
            # A disk that is full stays so for a while: trying with every answer would fill it with empty files.
            self._resume_at = self._clock() + _PAUSE_SECONDS
            _log.error(
                "serving log: up to %d answers lost, and those of the next %g s: %s", at_stake, _PAUSE_SECONDS, error
            )
            self._on_drop(at_stake)
            self._close_file()
            with contextlib.suppress(OSError):
                if not self._path.stat().st_size:
                    self._path.unlink()
        except Exception:
            _log.exception("serving log: up to %d answers lost", at_stake)
            self._on_drop(at_stake)
            self._close_file()

    def _append(self, record: records_pb2.ServingRecord) -> None:
        now = self._clock()
        if now - self._opened >= self._rotation.max_file_seconds:
            self._close_file()
        if self._file is None:
            if now < self._resume_at:
                self._on_drop(1)
                return
            self._file = self._open(now)
        proto.serialize_length_prefixed(record, self._file)  # type: ignore[arg-type]
        if self._file.tell() >= self._rotation.max_file_bytes:
            self._close_file()

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _open(self, now: float) -> BufferedWriter:
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        # The count keeps names apart, and in order, when files end faster than the clock moves.
        self._files += 1
        self._path = self._directory / f"{moment}-w{self._worker}-p{os.getpid()}-{self._files:06d}{SUFFIX}"
        self._opened = now
        make_private(self._directory)
        file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        # Held for as long as it is written, and let go however this process ends.
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
