"""The best of many scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Find the positions of the k best scores, in no order."""
    at: NDArray[np.int64] = np.argpartition(scores, len(scores) - k)[-k:] if k < len(scores) else np.arange(len(scores))
    return at
