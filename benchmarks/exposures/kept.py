"""What a run leaves in its working directory, so that the next one goes on where it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.layout import hash_of

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Kept:
    """Arrays below a directory, by what they were made of."""

    directory: Path

    def arrays(self, name: str, made_of: Sequence[bytes], make: Callable[[], Arrays]) -> Arrays:
        """Read what an earlier run made of the same, or make it. A file is whole or it is not there."""
        path = self.directory / f"{name}-{hash_of(made_of)[:16]}.npz"
        if not path.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}")
            with beside.open("wb") as file:
                np.savez(file, **make())
            beside.replace(path)
        with np.load(path) as found:
            return dict(found)
