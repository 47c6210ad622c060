"""Packages are built of a checkout whose links are links, and of no other, and ask for what their code needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("channel", "model_repo", "offline", "tools")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The few files that the build backend reads, with a small package of the same rooms."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "protos" / "serendipity"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
        (package / room).symlink_to(Path("..", "..", room))
    return tmp_path


def call(checkout: Path, hook: str) -> subprocess.CompletedProcess[str]:
    """Call a hook of the build backend as pip does, in the checkout and a process of its own."""
    program = f"from setuptools import build_meta; build_meta.{hook}"
    return subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("room", ROOMS)
def test_a_link_that_was_checked_out_as_a_file_is_refused(checkout: Path, room: str) -> None:
    link = checkout / "protos" / "serendipity" / room
    link.unlink()
    link.write_text(f"../../{room}")
    for hook in ("get_requires_for_build_wheel()", "build_wheel('out')", "build_sdist('out')", "build_editable('out')"):
        refused = call(checkout, hook)
        assert refused.returncode == 1, hook
        (said,) = refused.stderr.splitlines()
        assert said.startswith(f"protos/serendipity/{room}: found no directory")
        assert "git config core.symlinks true" in said
    assert [path for path in checkout.rglob("*") if path.suffix in (".whl", ".gz")] == []


def test_with_links_the_wheel_holds_every_room(checkout: Path) -> None:
    built = call(checkout, "build_wheel('out')")
    assert built.returncode == 0, built.stderr
    (wheel,) = (checkout / "out").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"serendipity/{room}/__init__.py" for room in ROOMS} <= set(names)
    # Installed by a name of its own, imported by the short one, which is taken on the public index.
    assert wheel.name.startswith("serendipity_recall-")


def requirements() -> Iterator[Requirement]:
    """What pyproject.toml asks for, in the base install and in every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for listed in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from map(Requirement, listed)


@pytest.mark.parametrize(
    ("files", "stated", "packages"),
    [
        ("*_pb2.py", r"^# Protobuf Python Version: (\S+)$", r"protobuf"),
        ("*_pb2_grpc.py", r"^GRPC_GENERATED_VERSION = '(\S+)'$", r"grpcio(-.+)?"),
    ],
)
def test_the_lower_bounds_are_those_that_the_generated_code_refuses_less_than(
    files: str, stated: str, packages: str
) -> None:
    generated = {
        Version(version)
        for path in (ROOT / "protos" / "serendipity" / "v1").glob(files)
        for version in re.findall(stated, path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    bounds = {
        requirement.name: Version(specifier.version)
        for requirement in requirements()
        if re.fullmatch(packages, requirement.name)
        for specifier in requirement.specifier
    }
    assert len(generated) == 1
    assert bounds
    assert {name: bound for name, bound in bounds.items() if bound < max(generated)} == {}


def test_extras_name_the_package_itself() -> None:
    """Under another name they would install a stranger's package."""
    assert {each.name for each in requirements() if each.name.startswith("serendip")} == {"serendipity-recall"}
