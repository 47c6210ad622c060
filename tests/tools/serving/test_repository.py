"""Models are put into a deployment repository whole, and left alone where they lie unchanged."""

from __future__ import annotations

from pathlib import Path

from serendipity import layout
from serendipity.tools.serving.deployment import place
from serendipity.tools.serving.kinds import (
    INTEREST_GPT,
    USER_TOWER,
)
from tests.fixtures.example_tower import Training


def test_placing_again_changes_nothing_and_repairs_what_was_changed(training: Training, tmp_path: Path) -> None:
    name = place(USER_TOWER, training.directory, tmp_path)
    inode = (tmp_path / name).stat().st_ino
    assert place(USER_TOWER, training.directory, tmp_path) == name
    assert (tmp_path / name).stat().st_ino == inode
    (tmp_path / name / "1" / "user_tower.onnx").write_bytes(b"cut off")
    place(USER_TOWER, training.directory, tmp_path)
    placed, trained = tmp_path / name / "1" / "user_tower.onnx", training.directory / "user_tower.onnx"
    assert layout.sha256(placed) == layout.sha256(trained)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_placing_an_interest_gpt_again_changes_nothing(tuned: Path, tmp_path: Path) -> None:
    name = place(INTEREST_GPT, tuned, tmp_path)
    inode = (tmp_path / name).stat().st_ino
    assert place(INTEREST_GPT, tuned, tmp_path) == name
    assert (tmp_path / name).stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == [name]
