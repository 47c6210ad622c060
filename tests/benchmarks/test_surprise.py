"""Settings of surprise are measured on a build that held clicks out, and on no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.surprise import main


def test_a_build_that_held_nothing_out_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--build", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "expected a build with hold_out above 0" in said
    assert said.count("\n") == 1
