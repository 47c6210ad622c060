from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from serendipity.tools.cli import main


@pytest.mark.parametrize("package", ["recbole", "colorlog"])
def test_a_missing_library_is_named_with_its_extra_before_anything_is_read(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = "serendipity.offline.evaluate.coea.recbole_library"
    monkeypatch.setattr(f"{library}.find_spec", lambda name: None if name == package else find_spec(name))
    nowhere = str(tmp_path / "logs")
    assert main(["evaluate", "coea", "--logs", nowhere, "--out", str(tmp_path / "out"), "--methods", "SASRec"]) == 1
    error = capsys.readouterr().err
    assert f"found no package {package}," in error
    assert "serendipity[evaluation]" in error
    assert not (tmp_path / "out").exists()
