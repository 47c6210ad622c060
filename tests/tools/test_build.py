"""`serendip build`, as far as it builds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from serendipity.tools.cli import main


def test_a_configuration_is_written_once_and_nothing_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--write-config", "build.toml"]) == 0
    assert "\n#novelty_level = 0\n" in Path("build.toml").read_text()
    assert main(["build", "--write-config", "build.toml"]) == 1
    assert capsys.readouterr().err == (
        "serendip build: build.toml: cannot be written (File exists); expected a new file's name\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["build.toml"]


def test_a_step_that_is_none_is_named_with_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("host").mkdir()
    assert main(["build", "--dataset", "host", "--step", "tower"]) == 1
    assert "serendip build: step tower: found none of that name, expected one of logs, " in capsys.readouterr().err
