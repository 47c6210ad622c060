"""The structure: what stands at the top, who may import whom, and that every field of the contract is explained."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from serendipity.arrays import map_array

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"channel": "serendipity.offline", "offline": "serendipity.channel"}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("half", FORBIDDEN)
def test_the_two_halves_never_import_each_other(half: str) -> None:
    offenders = {
        str(path.relative_to(ROOT)): name
        for path in (ROOT / half).rglob("*.py")
        for name in _imports(path)
        if name.startswith((FORBIDDEN[half], "serendipity.tools"))
    }
    assert offenders == {}


@pytest.mark.parametrize("room", ["channel", "model_repo", "offline", "protos", "tools"])
def test_what_is_installed_never_imports_the_benchmarks(room: str) -> None:
    offenders = {
        str(path.relative_to(ROOT)): name
        for path in (ROOT / room).rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] == "benchmarks"
    }
    assert offenders == {}


UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
RUNNERS = {"eval", "exec", "torch.export.load", "torch.jit.load", "torch.load", "yaml.load"}
UNPICKLED = {
    # What a worker process of a build has just raised, before it goes to its parent.
    ("offline/workers.py", "pickle.loads"),
    # Exported programs are code, as docs/security.md says: of the build itself, or of Triton's own repository.
    ("offline/export.py", "torch.export.load"),
    ("offline/groups/export.py", "torch.export.load"),
    ("model_repo/user_tower/1/model.py", "torch.export.load"),
}


def _unpickles(path: Path) -> set[str]:
    """What in a file could run code that data holds: calls, and modules whose names are imported from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.add(f"from {node.module}")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            module, _, name = called.rpartition(".")
            switched = {k.arg for k in node.keywords if ast.unparse(k.value) != "False"}
            reads = module in UNPICKLERS and name.startswith(("load", "Unpickler", "open"))
            if reads or called in RUNNERS or switched & {"allow_pickle", "trust_remote_code"}:
                found.add(called)
    return found


def test_nothing_that_is_read_can_run_code_but_for_exported_programs() -> None:
    rooms = [ROOT / room for room in ("channel", "model_repo", "offline", "protos", "tools")]
    found = {
        (str(path.relative_to(ROOT)), called)
        for room in rooms
        for path in room.rglob("*.py")
        if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
        for called in _unpickles(path)
    }
    assert found == UNPICKLED


class _Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_an_array_that_holds_an_object_is_not_unpickled(tmp_path: Path) -> None:
    planted, trace = tmp_path / "item_vectors.npy", tmp_path / "trace"
    np.save(planted, np.array([_Planted(trace)], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"item_vectors\.npy: cannot be mapped"):
        map_array(planted, np.float32, 2)
    assert not trace.exists()
    np.load(planted, allow_pickle=True)
    assert trace.exists()


def test_the_shared_definitions_import_neither_half() -> None:
    shared = ROOT / "protos" / "serendipity"
    # Not below the links: what stands there are the rooms themselves.
    paths = [Path(place) / name for place, _, names in os.walk(shared) for name in names if name.endswith(".py")]
    assert {shared / "layout.py", shared / "groups" / "decoding.py", shared / "interests" / "prompt.py"} <= set(paths)
    rooms = ("serendipity.channel", "serendipity.offline", "serendipity.tools")
    assert {str(path): name for path in paths for name in _imports(path) if name.startswith(rooms)} == {}


def test_no_modules_of_the_channel_import_each_other_in_a_circle() -> None:
    paths = {
        ".".join(("serendipity", *p.relative_to(ROOT).with_suffix("").parts)): p
        for p in (ROOT / "channel").rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {}
    for module, path in modules.items():
        named = _imports(path)
        # What is imported from a module is named below it.
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in named} & set(modules)
    assert len(graph) > 50
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", ["channel", "channel.errors", "offline", "offline.errors", "tools", "tools.cli"])
def test_no_room_can_be_imported_a_second_time_from_the_root(name: str) -> None:
    room = name.split(".")[0]
    with pytest.raises(ImportError, match=rf"^{room}: would be a second copy, import serendipity\.{room}$"):
        importlib.import_module(name)
    assert not [loaded for loaded in sys.modules if loaded.split(".")[0] == room]
    found = importlib.import_module(f"serendipity.{name}")
    assert found.__name__ == f"serendipity.{name}"


def test_the_client_needs_only_the_base_install() -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'numpy', 'torch', 'lmdb', 'faiss', 'pydantic', 'structlog', 'rich'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import serendipity.channel.client\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "protos").rglob("*.proto")), ids=lambda p: p.name)
def test_every_field_method_and_value_of_the_contract_is_commented(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    declarations = [
        (i, line.strip())
        for i, line in enumerate(lines)
        if line.strip().endswith(";") and not line.strip().startswith(("syntax", "package", "import", "option", "//"))
    ]
    assert declarations
    assert [line for i, line in declarations if not lines[i - 1].strip().startswith("//")] == []
