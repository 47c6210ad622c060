"""All rows of the comparison, in the order of the report.

A module of methods has `methods() -> tuple[Method, ...]`. It is imported only when one of its rows is wanted, so that
the libraries of one baseline need not be installed for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from benchmarks.coea.protocol import Method
from benchmarks.coea.recbole_library import require_recbole
from serendipity.offline.tuning.base_model import TINY

_PACKAGE = "benchmarks.coea"

MODULES: dict[str, tuple[str, ...]] = {
    "references": ("Random", "Popularity"),
    "two_tower": ("Two-tower",),
    "sequential": ("GRU4Rec", "SASRec", "BERT4Rec"),
    "explore": ("EXPLORE",),
    "hierarchical_bandits": ("HUCB", "pHUCB"),
    "neural_linear_bandit": ("NLB",),
    "kerec": ("LLM-KERec",),
    "google": ("Google-v1", "Google-v2"),
    "controls": ("Popularity + bonus", "Category ranker + bonus"),
    "coea": ("CoEA", "CoEA w/o Long", "CoEA w/o Short", "CoEA w/o R-LLM", "CoEA w/o KL"),
}
"""Module → names of its rows."""

_REQUIREMENTS: Mapping[str, Callable[[], None]] = {"sequential": require_recbole}
"""Module → check for libraries that it imports no earlier than in training: what is missing is said at once."""

_WITH_BASE = frozenset({"google", "coea"})
"""Modules whose language models are tuned from any base."""

NAMES: tuple[str, ...] = tuple(name for names in MODULES.values() for name in names)
"""Every row's name."""


def find_methods(names: Sequence[str] | None = None, base: str = TINY) -> tuple[Method, ...]:
    """Make the methods of these names (all by default), in the report's order. base: of language models that rows tune.

    Raises ValueError for an unknown one, LibraryMissing where a row's library is not installed.
    """
    wanted = set(NAMES if names is None else names)
    unknown = wanted - set(NAMES)
    if unknown:
        raise ValueError(f"methods: found {', '.join(sorted(unknown))}, expected some of {', '.join(NAMES)}")
    found: list[Method] = []
    for module, rows in MODULES.items():
        if wanted & set(rows):
            if module in _REQUIREMENTS:
                _REQUIREMENTS[module]()
            make = import_module(f"{_PACKAGE}.{module}").methods
            made = {method.name: method for method in (make(base) if module in _WITH_BASE else make())}
            found += [made[name] for name in rows if name in wanted]
    return tuple(found)
