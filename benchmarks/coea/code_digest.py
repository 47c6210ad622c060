"""What results follow from besides data and configuration: code, without its comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def code_of(module: str) -> str:
    """Digest a module's syntax tree, without docstrings."""
    source = getattr(sys.modules[module], "__file__", None)
    return "" if source is None else _digest_of([Path(source)])


def code_of_package(package: ModuleType) -> str:
    """Digest the syntax trees of a package's own modules, without docstrings, for results that follow from all."""
    return _digest_of(sorted(path for root in package.__path__ for path in Path(root).glob("*.py")))


def _digest_of(sources: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                ast.get_docstring(node, clean=False) is not None
            ):
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]
