"""`serendip evaluate interests` says what it lacks."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from serendipity.tools import evaluate_interests


def _arguments(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate_interests.add_arguments(parser)
    return parser.parse_args(arguments)


def test_a_build_that_held_nothing_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    assert evaluate_interests.run(_arguments("--build", str(tmp_path))) == 1
    assert "expected a build with hold_out above 0" in capsys.readouterr().err


def test_an_encoder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_interests.run(_arguments("--build", str(tmp_path), "--text-encoder", str(tmp_path))) == 1
    assert f"{tmp_path / 'config.json'}: missing" in capsys.readouterr().err
