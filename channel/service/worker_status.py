"""What each worker of a host serves, as small files the admin service reads: <directory>/<worker>.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from serendipity import layout


@dataclass(frozen=True)
class WorkerStatus:
    """One worker's state.

    version: snapshot it serves, empty for none; since: when it began to, Unix seconds; error: why it does not serve
    the wanted one, empty otherwise; metrics_port: where its metrics are, 0 for nowhere.
    """

    worker: int
    pid: int
    version: str
    since: float
    error: str
    metrics_port: int


def write_status(directory: Path, status: WorkerStatus) -> None:
    """Replace a worker's file. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    layout.write_atomically(directory / f"{status.worker}.json", json.dumps(asdict(status)).encode())


def read_statuses(directory: Path) -> list[WorkerStatus]:
    """Read the states of workers that live, by number; a file that cannot be read is left out."""
    statuses = []
    for path in directory.glob("*.json"):
        try:
            statuses.append(WorkerStatus(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    # Whoever was killed left its file behind.
    living = (status for status in statuses if Path(f"/proc/{status.pid}").exists())
    return sorted(living, key=lambda status: status.worker)
