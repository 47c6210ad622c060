"""`python -m benchmarks.interests` says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.interests.__main__ import main


def test_a_build_that_held_nothing_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path / "none")]) == 1
    assert f"{tmp_path / 'none'}: no such directory" in capsys.readouterr().err
    (tmp_path / "logs").mkdir()
    assert main(["--build", str(tmp_path)]) == 1
    assert "expected a build with hold_out above 0" in capsys.readouterr().err


def test_an_encoder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path), "--text-encoder", str(tmp_path)]) == 1
    assert f"{tmp_path / 'config.json'}: missing" in capsys.readouterr().err
