"""The user tower as the pipeline sees it, wherever it runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerAnswerInvalid
from serendipity.features import TowerInputs


class UserTower(Protocol):
    """Turns histories, profiles and interests into user vectors."""

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        """Run exactly the model that is named, since item vectors of another training do not fit.

        inputs: B users with up to k interests each. Returns [B, 1 + k, d] float32, row 0 of each user without
        an interest (U2I), row k with interest k − 1 of the inputs (I2I).
        Raises TowerTimeout, TowerUnavailable or TowerAnswerInvalid.
        """
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...


def check_user_vectors(
    vectors: NDArray[np.float32] | None, inputs: TowerInputs, model_name: str
) -> NDArray[np.float32]:
    """Check a tower's answer and return it.

    Raises TowerAnswerInvalid when it is missing, is not [B, 1 + k, d] or holds numbers that are not finite:
    a NaN would rank first or last at random.
    """
    expected = (len(inputs), 1 + inputs.interests.shape[1])
    if vectors is None or vectors.ndim != 3 or vectors.shape[:2] != expected or not vectors.shape[2]:
        found = "no output" if vectors is None else f"shape {vectors.shape}"
        raise TowerAnswerInvalid(f"{model_name}: found {found}, expected ({expected[0]}, {expected[1]}, d)")
    if vectors.dtype != np.float32:
        raise TowerAnswerInvalid(f"{model_name}: found {vectors.dtype}, expected float32")
    if not np.isfinite(vectors).all():
        bad = int((~np.isfinite(vectors)).any(axis=(1, 2)).sum())
        raise TowerAnswerInvalid(f"{model_name}: vectors of {bad} of {len(vectors)} users are not finite")
    return vectors
