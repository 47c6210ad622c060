"""Where tritonserver is: installed, or packaged in nvidia-pytriton with all it needs to start."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path


class TritonError(Exception):
    """tritonserver cannot be found, started or kept running: says what is missing and how to get it."""


class TritonDown(TritonError):
    """A tritonserver that was started has ended, or never became ready: it may do better when it is started again."""


@dataclass(frozen=True)
class TritonProgram:
    """A tritonserver that can be started.

    executable: the program; environment: variables laid over the caller's; backends: files of its Python backend by
    name, None where the installation has its own backends.
    """

    executable: Path
    environment: Mapping[str, str]
    backends: Mapping[str, Path] | None = None


def find_program(which: Callable[[str], str | None] = shutil.which) -> TritonProgram:
    """Find tritonserver: on PATH (as in NVIDIA's container), or in the package nvidia-pytriton.

    Raises TritonError when there is none, or when a shared library of the packaged one is missing.
    """
    if installed := which("tritonserver"):
        return TritonProgram(Path(installed), {})
    return packaged_program()


def packaged_program(find_spec: Callable[[str], ModuleSpec | None] = importlib.util.find_spec) -> TritonProgram:
    """The tritonserver in nvidia-pytriton, with the Python backend's stub for the running Python.

    The package itself is not imported: it is installed without its dependencies.
    """
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise TritonError(
            "no tritonserver on PATH and no packaged one; install it with\n"
            "    pip install --no-deps nvidia-pytriton==0.7.0\n"
            "or run inside NVIDIA's container nvcr.io/nvidia/tritonserver"
        )
    package = Path(spec.submodule_search_locations[0])
    server = package / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    executable = server / "bin" / "tritonserver"
    if not executable.is_file():
        raise TritonError(f"{executable}: missing; nvidia-pytriton {_version()} holds no tritonserver, expected 0.7.0")
    if not stub.is_file():
        known = sorted(path.name for path in (server / "python_backend_stubs").glob("*"))
        raise TritonError(
            f"{stub}: missing; nvidia-pytriton {_version()} has stubs for Python {', '.join(known)}, running {python}"
        )
    backends = {path.name: path for path in (server / "backends" / "python").iterdir() if path.is_file()}
    backends[stub.name] = stub
    interpreter = Path(sys.prefix) / "bin"
    libraries = [str(package.parent / "nvidia_pytriton.libs"), *_libpython_directories()]
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
        # The stub takes its packages from the python3 that is first on PATH.
        "PATH": os.pathsep.join([str(interpreter), os.environ.get("PATH", os.defpath)]),
    }
    program = TritonProgram(executable, environment, backends)
    if missing := missing_libraries([executable, stub, backends["libtriton_python.so"]], environment):
        raise TritonError(_advice(missing, python))
    return program


def missing_libraries(files: Sequence[Path], environment: Mapping[str, str]) -> dict[str, Path]:
    """Shared libraries the loader does not find, each with a file that needs it (as ldd reports them)."""
    ldd = shutil.which("ldd")
    if ldd is None:  # no glibc tools: the loader itself will complain
        return {}
    missing: dict[str, Path] = {}
    for file in files:
        listing = subprocess.run(
            [ldd, str(file)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
        ).stdout
        for line in listing.splitlines():
            if "not found" in line and "=>" in line:
                missing.setdefault(line.split("=>")[0].strip(), file)
    return missing


def _advice(missing: Mapping[str, Path], python: str) -> str:
    lines = ["tritonserver cannot start: shared libraries are missing"]
    for name, file in missing.items():
        lines.append(f"    {name}, needed by {file}")
    if any(name.startswith("libpython") for name in missing):
        lines.append(
            f"Triton's Python backend embeds Python {python}: `apt-get install libpython{python}` (Debian, Ubuntu), "
            "or a Python built with --enable-shared"
        )
    return "\n".join(lines)


def _libpython_directories() -> list[str]:
    """Where the running Python keeps its shared library, if it has one outside the loader's own directories."""
    name = sysconfig.get_config_var("INSTSONAME")
    places = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib")]
    return list(dict.fromkeys(p for p in places if p and name and (Path(p) / name).is_file()))


def _version() -> str:
    try:
        return importlib.metadata.version("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"
