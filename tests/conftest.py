"""Fixtures that several parts' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.small_coevolution import write_small_build
from tests.fixtures.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """One small world for the whole run; tests must not change its files."""
    return make_small_world(tmp_path_factory.mktemp("small-world"))


@pytest.fixture(scope="session")
def small_coevolution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small build up to its LLMs for the whole run; tests must not change its files."""
    root = tmp_path_factory.mktemp("small-coevolution")
    write_small_build(root)
    return root
