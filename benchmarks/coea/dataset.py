"""The clicks that are compared on: logs of a data set, and how they are split."""

from __future__ import annotations

from pathlib import Path

from benchmarks.coea.protocol import CategorySplit
from serendipity.offline.datasets.registry import prepare
from serendipity.offline.logs.builder import SUMMARY, build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories
from serendipity.offline.logs.schema import LogsConfig

_LEAVE_LAST_OUT = frozenset({"ml-100k", "ml-1m"})


def read_split(logs: Path, dataset: str) -> CategorySplit:
    """Split the clicks of logs, by each user's last ones where the data set is compared so."""
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    make = CategorySplit.leave_last_out if dataset in _LEAVE_LAST_OUT else CategorySplit.by_time
    return make(histories, catalogue)


def find_logs(dataset: str, out: Path) -> Path:
    """Give the logs below `out`, built first where they are missing."""
    logs = out / "logs"
    if not (logs / SUMMARY).is_file():
        host = prepare(dataset, out)
        build_logs(host.root, logs, LogsConfig(novelty_level=host.novelty_level))
    return logs
