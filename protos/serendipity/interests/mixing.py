"""How InterestGPT's likelihoods move what the reasoner proposes: one definition for the build and for near-line."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mixed(
    probabilities: NDArray[Any],
    log_likelihoods: NDArray[Any],
    weight: float,
) -> NDArray[np.float64]:
    """Give P(enter) of one user's n candidates with the likelihoods taken into account: [n], above 0 and below 1.

    probabilities: the reasoner's, above 0; log_likelihoods: of the same candidates. weight: what one standard deviation
    of the user's log-likelihoods counts in log-odds, as likelihoods are of texts and not of clicks: their scale says
    nothing, their order may.
    """
    inside = np.clip(probabilities.astype(np.float64), 1e-9, 1 - 1e-9)
    spread = log_likelihoods.std()
    standardised = (log_likelihoods - log_likelihoods.mean()) / spread if spread > 0 else np.zeros(len(inside))
    odds: NDArray[np.float64] = inside / (1 - inside) * np.exp(weight * standardised)
    return odds / (1 + odds)
