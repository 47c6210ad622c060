"""Finding tritonserver and what it needs."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from serendipity.tools.serving import triton_program
from serendipity.tools.serving.triton_program import TritonError, find_program, missing_libraries, packaged_program


def test_an_installed_tritonserver_is_used_as_it_is() -> None:
    program = find_program(which=lambda name: f"/opt/tritonserver/bin/{name}")
    assert program.executable == Path("/opt/tritonserver/bin/tritonserver")
    assert program.environment == {}
    assert program.backends is None


def test_the_packaged_one_comes_with_the_stub_of_this_python_and_this_environment_first() -> None:
    program = find_program(which=lambda _: None)
    assert os.access(program.executable, os.X_OK)
    assert program.backends is not None
    stub = program.backends["triton_python_backend_stub"]
    assert stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert {"libtriton_python.so", "triton_python_backend_utils.py"} <= set(program.backends)
    assert program.environment["PATH"].split(os.pathsep)[0] == str(Path(sys.prefix) / "bin")
    assert "nvidia_pytriton.libs" in program.environment["LD_LIBRARY_PATH"].split(os.pathsep)[0]
    assert "pytriton" not in sys.modules


def test_without_any_tritonserver_the_error_says_what_to_install() -> None:
    with pytest.raises(TritonError, match="pip install --no-deps nvidia-pytriton"):
        packaged_program(find_spec=lambda _: None)


def test_a_package_without_a_stub_for_this_python_is_refused(tmp_path: Path) -> None:
    server = tmp_path / "pytriton" / "tritonserver"
    (server / "bin").mkdir(parents=True)
    (server / "bin" / "tritonserver").touch()
    (server / "python_backend_stubs" / "3.8").mkdir(parents=True)
    spec = ModuleSpec("pytriton", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "pytriton")]
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(TritonError, match=f"has stubs for Python 3.8, running {running}"):
        packaged_program(find_spec=lambda _: spec)


def test_shared_libraries_that_are_missing_are_named(tmp_path: Path) -> None:
    program = packaged_program()
    assert missing_libraries([program.executable], program.environment) == {}
    # Away from its package it no longer finds the libraries that lie beside it.
    alone = Path(shutil.copy(program.executable, tmp_path))
    missing = missing_libraries([alone], {**program.environment, "LD_LIBRARY_PATH": ""})
    assert any(name.startswith("libtritonserver") for name in missing)
    assert set(missing.values()) == {alone}


def test_a_missing_libpython_says_which_package_brings_it() -> None:
    advice = triton_program._advice({"libpython3.11.so.1.0": Path("stub")}, "3.11")
    assert "libpython3.11.so.1.0, needed by stub" in advice
    assert "apt-get install libpython3.11" in advice
