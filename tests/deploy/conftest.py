"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serendipity.channel.nearline.store import NearlineStore, open_nearline
from tests.channel.served import server_settings


@pytest.fixture
def nearline_store(tmp_path: Path) -> Iterator[NearlineStore]:
    """An empty near-line store."""
    with open_nearline(server_settings(tmp_path)) as store:
        yield store
