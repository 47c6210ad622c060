"""Fixtures that several parts' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures.small_coevolution import write_small_build
from tests.fixtures.small_world import SmallWorld, make_small_world

# The same examples in every run, and no verdict on how fast a busy machine goes through them.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Of the machine: settings of a service, and a proxy, which servers on loopback are not behind.
for name in [name for name in os.environ if name.startswith("SERENDIPITY_")]:
    del os.environ[name]
os.environ["no_proxy"] = "*"


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
