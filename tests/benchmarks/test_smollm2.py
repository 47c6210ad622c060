"""The packaged SmolLM2: converted once, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.smollm2 import convert_gguf, default_cache_dir, smollm2_path
from serendipity.offline.language_models.language_model import LanguageModelError


def test_of_several_callers_one_converts(tmp_path: Path) -> None:
    conversions: list[Path] = []
    start = threading.Barrier(4)

    def convert(gguf: Path, directory: Path) -> None:
        conversions.append(gguf)
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(b"weights")

    def call() -> Path:
        start.wait()
        return smollm2_path(tmp_path / "models", convert=convert)

    with ThreadPoolExecutor(4) as pool:
        found = {task.result() for task in [pool.submit(call) for _ in range(4)]}
    assert [gguf.name for gguf in conversions] == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    [directory] = found
    assert (directory / "model.safetensors").read_bytes() == b"weights"


def test_a_conversion_that_is_killed_leaves_no_model_and_is_begun_anew(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from benchmarks.smollm2 import smollm2_path\n"
        "def convert(gguf, directory):\n"
        "    directory.mkdir()\n"
        "    (directory / 'model.safetensors').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"smollm2_path(Path({str(tmp_path)!r}), convert=convert)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == -9
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []

    def convert(gguf: Path, directory: Path) -> None:
        directory.mkdir()
        (directory / "config.json").write_text("{}")

    directory = smollm2_path(tmp_path, convert=convert)
    assert [path.name for path in directory.iterdir()] == ["config.json"]


def test_a_conversion_that_fails_leaves_no_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\0\0\0\0")
    with pytest.raises(LanguageModelError, match=r"broken\.gguf: cannot be converted"):
        smollm2_path(tmp_path / "models", convert=lambda _, directory: convert_gguf(broken, directory))
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")] == []


def test_converted_models_are_kept_in_the_user_s_cache_directory(tmp_path: Path) -> None:
    place = Path("serendipity") / "language_models"
    assert default_cache_dir({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / place
    assert default_cache_dir({}) == Path.home() / ".cache" / place
