"""From raw scores, which differ in kind between sources, to probabilities that compare.

score = P(interaction within H days | recalled): isotonic per source, piecewise linear between knots, fitted on a
replay at build time and stored in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.errors import SnapshotUnavailable
from serendipity.v1 import channel_pb2, records_pb2

UNCALIBRATED = "none"
"""Calibration id of snapshots that carry no calibrators."""


@dataclass(frozen=True)
class Knots:
    """A piecewise-linear curve. raw: [m] float64, ascending; probability: [m] float64, ascending, 0 to 1."""

    raw: NDArray[np.float64]
    probability: NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """The calibrators of a snapshot, by source and by whether stored vectors stood in for the tower."""

    id: str = UNCALIBRATED
    knots: Mapping[tuple[int, bool], Knots] = field(default_factory=dict)

    @classmethod
    def from_manifest(cls, calibration: records_pb2.Calibration) -> Calibration:
        """Read the manifest's. Raises SnapshotUnavailable for a curve that is not ascending or not a probability."""
        knots: dict[tuple[int, bool], Knots] = {}
        for stored in calibration.calibrators:
            if stored.source not in channel_pb2.Source.values():
                continue
            name = f"calibration {calibration.id}: {channel_pb2.Source.Name(stored.source)}, fallback {stored.fallback}"
            raw, probability = np.array(stored.raw, np.float64), np.array(stored.probability, np.float64)
            if len(raw) != len(probability) or not len(raw):
                raise SnapshotUnavailable(f"{name}: found {len(raw)} and {len(probability)} knots, expected pairs")
            if not (np.isfinite(raw).all() and (np.diff(raw) >= 0).all() and (np.diff(probability) >= 0).all()):
                raise SnapshotUnavailable(f"{name}: knots are not ascending")
            if not 0 <= probability[0] <= probability[-1] <= 1:
                raise SnapshotUnavailable(f"{name}: found {probability[0]} to {probability[-1]}, expected 0 to 1")
            knots[stored.source, stored.fallback] = Knots(raw, probability)
        return cls(calibration.id or UNCALIBRATED, knots)

    def probabilities(self, source: int, fallback: bool, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map raw scores of one source, [n], to probabilities, [n] float32 in 0 to 1; order is kept.

        A fallback without a curve of its own takes the tower's, and the group source without any that of U2I, whose
        scores its own are, lowered by alignment. Any other source without one is read as log odds, which is what the
        tower's binary cross-entropy makes of an inner product.
        """
        curves = [(source, fallback), (source, False)]
        if source == channel_pb2.SOURCE_GROUP:
            curves += [(channel_pb2.SOURCE_COLLABORATIVE, fallback), (channel_pb2.SOURCE_COLLABORATIVE, False)]
        knots = next((self.knots[curve] for curve in curves if curve in self.knots), None)
        scores = raw.astype(np.float64)
        if knots is None:
            # The positive and the negative branch of the logistic function, so that exp never overflows.
            decay = np.exp(-np.abs(scores))
            return np.where(scores >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(np.float32)
        return np.interp(scores, knots.raw, knots.probability).astype(np.float32)
