"""`--dataset` → host files: a public data set by name, or a host's own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from serendipity.offline.datasets.adapter import Adapter, DatasetError
from serendipity.offline.datasets.complete_journey import COMPLETE_JOURNEY
from serendipity.offline.datasets.movielens import ML_1M, ML_100K

ADAPTERS: dict[str, Adapter] = {adapter.name: adapter for adapter in (COMPLETE_JOURNEY, ML_100K, ML_1M)}


@dataclass(frozen=True)
class HostData:
    """Host files ready to be read.

    name: of the data set or folder; root: folder or URL where events, items and users lie; novelty_level: the data
    set's own level of the category path that is top-level for novelty (0 for a host's folder).
    """

    name: str
    root: str
    novelty_level: int


def prepare(dataset: str, out: Path) -> HostData:
    """Make a data set's host files: written below <out>/host for a name of ADAPTERS, otherwise taken as they are.

    A name wins over a folder of the same name; write ./name for the folder. Raises DatasetError when `dataset` is
    neither, or the package that carries it is not installed.
    """
    if dataset in ADAPTERS:
        adapter = ADAPTERS[dataset]
        host = out / "host"
        source = adapter.locate()
        host.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection:
            adapter.write(source, host, connection)
        return HostData(adapter.name, str(host), adapter.novelty_level)
    if "://" in dataset:
        return HostData(dataset.rstrip("/").rpartition("/")[2], dataset, 0)
    folder = Path(dataset)
    if not folder.is_dir():
        raise DatasetError(
            f"data set {dataset!r}: found neither a data set nor a folder of that name; "
            f"expected one of {', '.join(ADAPTERS)}, a folder with events and items, or its URL"
        )
    return HostData(folder.resolve().name, str(folder.resolve()), 0)
