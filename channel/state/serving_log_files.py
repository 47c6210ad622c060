"""The serving log's files once they are closed: compacted to Parquet, which builders read, and removed when old.

<directory>/NAME.log        being written by a worker, which holds its lock (flock), or left by one that is no more
<directory>/NAME.parquet    the same records, a row each with the fields of ServingRecord as columns, zstd

python -m serendipity.channel.state.serving_log_files DIRECTORY      compacts what is closed
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from google.protobuf import proto
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from serendipity.channel.errors import StateUnavailable
from serendipity.v1 import records_pb2

SUFFIX = ".log"
COMPACT = ".parquet"
_ROWS = 1_000
_NICENESS = 10


async def compact(directory: Path, most_bytes: int) -> None:
    """Compact what is closed, in a process of its own so that answers do not wait for it; remove what is beyond a size.

    Raises StateUnavailable, with the last line that the process wrote.
    """
    if any(not _is_open(path) for path in directory.glob(f"*{SUFFIX}")):
        command = (sys.executable, "-m", "serendipity.channel.state.serving_log_files", str(directory))
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        try:
            said = (await process.communicate())[1].decode(errors="replace").strip().splitlines()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise StateUnavailable(f"{directory.name}: not compacted: {(said or ['no word'])[-1]}")
    total = 0
    for status, path in sorted(_closed(directory), key=lambda pair: -pair[0].st_mtime):
        total += status.st_size
        if total > most_bytes:
            path.unlink(missing_ok=True)


def remove_old(directory: Path, before: float, now: float) -> int:
    """Remove closed files, of whichever worker, last written before a time (Unix seconds); returns how many.

    now: Unix seconds; files of a clock that was ahead are brought down to it.
    """
    removed = 0
    for status, path in _closed(directory):
        if status.st_mtime < before:
            path.unlink(missing_ok=True)
            removed += 1
        elif status.st_mtime > now:
            os.utime(path, (now, now))
    return removed


def main(directory: Path) -> int:
    """Compact the closed files of a directory; returns the exit status."""
    os.nice(_NICENESS)
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        with path.open("rb") as file:
            # An empty one may be just made, and not locked yet.
            if file.peek(1) and _lock(file):
                _write_parquet(read_records(file), path.with_suffix(COMPACT))
                path.unlink()
    return 0


def read_records(file: BufferedReader) -> Iterator[records_pb2.ServingRecord]:
    """Read the records of a .log file; one that is torn ends it without an error: its process died writing it."""
    while file.peek(1):
        try:
            yield proto.parse_length_prefixed(records_pb2.ServingRecord, file)  # type: ignore[arg-type]
        except (DecodeError, ValueError):
            return


def _write_parquet(records: Iterator[records_pb2.ServingRecord], place: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def batch(rows: list[records_pb2.ServingRecord]) -> Any:
        return pa.RecordBatch.from_struct_array(_struct(rows, records_pb2.ServingRecord.DESCRIPTOR))

    beside = place.with_name(f"{place.name}.part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        with parquet.ParquetWriter(file, batch([]).schema, compression="zstd") as writer:
            for rows in iter(lambda: list(itertools.islice(records, _ROWS)), []):
                writer.write_batch(batch(rows))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(place)


def _struct(messages: Sequence[Any], kind: Any, present: Sequence[bool] | None = None) -> Any:
    """Lay messages of a kind out as an Arrow struct of its fields. present: False where a message is none, null."""
    import pyarrow as pa

    names, arrays = [], []
    for field in kind.fields:
        values = [getattr(message, field.name) for message in messages]
        names.append(field.name)
        if field.is_repeated:
            offsets = pa.array(itertools.accumulate(map(len, values), initial=0), pa.int32())
            arrays.append(pa.ListArray.from_arrays(offsets, _column([v for some in values for v in some], field)))
        elif field.message_type is not None:
            arrays.append(_column(values, field, [message.HasField(field.name) for message in messages]))
        else:
            arrays.append(_column(values, field))
    mask = None if present is None else pa.array([not one for one in present], pa.bool_())
    return pa.StructArray.from_arrays(arrays, names, mask=mask)


def _column(values: Sequence[Any], field: FieldDescriptor, present: Sequence[bool] | None = None) -> Any:
    """Lay the values of a field out: enumerations by name, moments as timestamps, durations in seconds."""
    import pyarrow as pa

    if field.enum_type is not None:
        known = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return pa.array([known.get(value, str(value)) for value in values], pa.string())
    if field.message_type is None:
        types = {
            FieldDescriptor.CPPTYPE_BOOL: pa.bool_(),
            FieldDescriptor.CPPTYPE_INT32: pa.int32(),
            FieldDescriptor.CPPTYPE_INT64: pa.int64(),
            FieldDescriptor.CPPTYPE_UINT32: pa.uint32(),
            FieldDescriptor.CPPTYPE_UINT64: pa.uint64(),
            FieldDescriptor.CPPTYPE_FLOAT: pa.float32(),
            FieldDescriptor.CPPTYPE_DOUBLE: pa.float64(),
            FieldDescriptor.CPPTYPE_STRING: pa.string(),
        }
        return pa.array(values, types[field.cpp_type])
    if not field.message_type.full_name.startswith("google.protobuf."):
        return _struct(values, field.message_type, present)
    there = present or [True] * len(values)
    micros = [value.ToMicroseconds() if is_there else None for value, is_there in zip(values, there, strict=True)]
    if field.message_type.name == "Timestamp":
        return pa.array(micros, pa.timestamp("us", "UTC"))
    return pa.array([None if one is None else one / 1e6 for one in micros], pa.float64())


def _closed(directory: Path) -> Iterator[tuple[os.stat_result, Path]]:
    """Give the files that nobody writes, with what is known of them."""
    for path in directory.glob(f"*{COMPACT}"):
        with contextlib.suppress(FileNotFoundError):
            yield path.stat(), path
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            if not _is_open(path):
                yield path.stat(), path


def _is_open(path: Path) -> bool:
    with path.open("rb") as file:
        return not _lock(file)


def _lock(file: BufferedReader) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
