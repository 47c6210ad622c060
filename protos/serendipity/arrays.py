"""Arrays of a snapshot, mapped and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)


def map_array(path: Path, dtype: type[_Scalar], dimensions: int) -> NDArray[_Scalar]:
    """Map a .npy file. Raises ValueError naming the file, what was found and what was expected."""
    expected = f"expected {dimensions} dimension{'s' if dimensions > 1 else ''} of {np.dtype(dtype)}"
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be mapped ({error}); {expected}") from error
    if mapped.dtype != dtype or mapped.ndim != dimensions:
        raise ValueError(f"{path}: found {mapped.dtype} {mapped.shape}, {expected}")
    # A plain array over the mapping: slicing numpy's memmap class costs a Python call each time.
    return np.asarray(mapped)
