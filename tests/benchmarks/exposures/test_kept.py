"""What a run made is read by the next one, if it was made of the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.exposures.kept import Arrays, Kept


def test_what_was_made_of_the_same_is_made_once(tmp_path: Path) -> None:
    kept, made = Kept(tmp_path / "kept"), []

    def make() -> Arrays:
        made.append(len(made))
        return {"numbers": np.arange(3) + len(made)}

    for of, expected in ((b"a", [1, 2, 3]), (b"a", [1, 2, 3]), (b"b", [2, 3, 4])):
        assert kept.arrays("scores", [of], make)["numbers"].tolist() == expected
    assert len(made) == 2


def test_what_failed_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    kept = Kept(tmp_path)

    def fail() -> Arrays:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        kept.arrays("scores", [b"a"], fail)
    assert kept.arrays("scores", [b"a"], lambda: {"one": np.ones(1)})["one"].tolist() == [1.0]
