from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from serendipity.channel.snapshot.calibration import UNCALIBRATED, Calibration, Knots
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2

I2I, U2I, GROUP = pb.SOURCE_INTEREST, pb.SOURCE_COLLABORATIVE, pb.SOURCE_GROUP


def knots(raw: list[float], probability: list[float]) -> Knots:
    return Knots(np.array(raw), np.array(probability))


CALIBRATION = Calibration(
    "test",
    {
        (I2I, False): knots([0, 1], [0.0, 0.5]),
        (U2I, False): knots([0, 10], [0.0, 1.0]),
        (U2I, True): knots([0, 10], [0.0, 0.1]),
    },
)


def test_stored_vectors_have_a_calibrator_of_their_own() -> None:
    raw = np.array([10.0], np.float32)
    assert CALIBRATION.probabilities(U2I, False, raw).tolist() == [1.0]
    assert CALIBRATION.probabilities(U2I, True, raw).tolist() == pytest.approx([0.1])
    # A source without one for stored vectors takes the tower's.
    assert CALIBRATION.probabilities(I2I, True, np.array([1.0], np.float32)).tolist() == [0.5]


def test_without_calibrators_scores_are_read_as_log_odds() -> None:
    raw = np.array([-1e30, -2.0, 0.0, 2.0, 1e30], np.float32)
    probabilities = Calibration().probabilities(I2I, False, raw)
    assert probabilities.tolist() == pytest.approx([0.0, 0.11920292, 0.5, 0.88079708, 1.0])


@given(npst.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)), st.booleans())
def test_calibration_keeps_the_order_and_gives_probabilities(raw: NDArray[np.float32], calibrated: bool) -> None:
    raw.sort()
    probabilities = (CALIBRATION if calibrated else Calibration()).probabilities(U2I, False, raw)
    assert probabilities.dtype == np.float32
    assert (np.diff(probabilities) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_scores_of_several_interests_are_mapped_at_once() -> None:
    raw = np.linspace(-1, 2, 12, dtype=np.float32).reshape(4, 3)
    together = CALIBRATION.probabilities(I2I, False, raw)
    assert together.tolist() == [CALIBRATION.probabilities(I2I, False, row).tolist() for row in raw]


def test_the_group_source_without_a_curve_takes_that_of_u2i() -> None:
    raw = np.array([1.0, 5.0, 50.0], np.float32)
    assert CALIBRATION.probabilities(GROUP, False, raw).tolist() == pytest.approx([0.1, 0.5, 1.0])
    assert CALIBRATION.probabilities(GROUP, True, raw).tolist() == pytest.approx([0.01, 0.05, 0.1])
    own = Calibration("own", {**CALIBRATION.knots, (GROUP, False): knots([0, 10], [0.0, 0.5])})
    assert own.probabilities(GROUP, False, raw).tolist() == pytest.approx([0.05, 0.25, 0.5])
    # Its own for the tower goes before another source's for stored vectors.
    assert own.probabilities(GROUP, True, raw).tolist() == pytest.approx([0.05, 0.25, 0.5])
    uncalibrated = Calibration().probabilities(GROUP, False, raw)
    assert uncalibrated.tolist() == Calibration().probabilities(U2I, False, raw).tolist()


def test_a_manifest_without_calibrators_or_with_those_of_unknown_sources_is_uncalibrated() -> None:
    assert Calibration.from_manifest(records_pb2.Calibration()).id == UNCALIBRATED
    later = records_pb2.Calibrator(source=99, raw=[0.0], probability=[2.0])  # type: ignore[arg-type]
    read = Calibration.from_manifest(records_pb2.Calibration(id="later", calibrators=[later]))
    assert (read.id, dict(read.knots)) == ("later", {})
