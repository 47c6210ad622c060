"""Lists of one method with one seed, kept on disk: what a killed comparison continues from.

Lists are kept, not figures: metrics and choices are made of them in a moment.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit, Episodes, Method, Setting
from serendipity.layout import write_atomically

_FORMAT = 1


@dataclass(frozen=True)
class MethodLists:
    """What a method with one seed answered.

    settings: the trade-offs asked for. validation, test: [settings, n, K] int16 columns, −1 past a list's end.
    seconds: fitting and scoring.
    """

    name: str
    seed: int
    settings: tuple[Setting, ...]
    validation: NDArray[np.int16]
    test: NDArray[np.int16]
    seconds: float

    def write(self, path: Path) -> None:
        """Write beside, then move into place."""
        about = {"name": self.name, "seed": self.seed, "settings": list(self.settings), "seconds": self.seconds}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=json.dumps(about), validation=self.validation, test=self.test)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> MethodLists:
        """Read what `write` wrote."""
        with np.load(path) as stored:
            about = json.loads(str(stored["about"]))
            settings = tuple(about["settings"])
            validation, test = stored["validation"], stored["test"]
        return cls(about["name"], about["seed"], settings, validation, test, about["seconds"])


def result_path(cache: Path, split: str, method: Method, seed: int) -> Path:
    """Name the file of a method with a seed. split: `fingerprint` of what is asked.

    The name changes with the split, the configuration and settings, and the code of the method's own module (without
    comments and docstrings). Code further away is looked at where the configuration digests it (`code_of_package`);
    else delete the file after changing it.
    """
    facts = {
        "format": _FORMAT,
        "split": split,
        "configuration": dict(method.configuration),
        "settings": [dict(setting) for setting in method.settings],
        "code": code_of(type(method).__module__),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    slug = "".join(letter if letter.isalnum() else "-" for letter in method.name.lower())
    return cache / f"{slug}-{seed}-{digest}.npz"


def fingerprint(split: CategorySplit) -> str:
    """First 16 hex digits of the SHA-256 over the clicks trained on and the episodes."""
    digest = hashlib.sha256()
    digest.update("\n".join(split.catalogue.categories).encode())
    digest.update(np.ascontiguousarray(split.training.items).tobytes())
    digest.update(np.ascontiguousarray(split.training.times).tobytes())
    for episodes in (split.validation, split.test):
        _update(digest, episodes)
    return digest.hexdigest()[:16]


def _update(digest: hashlib._Hash, episodes: Episodes) -> None:
    digest.update(episodes.users.tobytes())
    digest.update(np.packbits(episodes.targets).tobytes())
    digest.update(repr(episodes.recent).encode())


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
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body else None
                if (
                    isinstance(first, ast.Expr)
                    and isinstance(first.value, ast.Constant)
                    and isinstance(first.value.value, str)
                ):
                    node.body = node.body[1:] or [ast.Pass()]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]
