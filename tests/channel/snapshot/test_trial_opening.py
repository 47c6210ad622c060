"""A snapshot whose files are intact and which cannot be served all the same is not published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.snapshot import open_snapshot
from serendipity.channel.snapshot.trial_opening import can_be_opened
from serendipity.item_ids import ItemIds
from tests.channel.served import copy_snapshot
from tests.fixtures.small_world import SmallWorld


@pytest.fixture
def publications(small_world: SmallWorld, tmp_path: Path) -> Publications:
    for version in ("v1", "v2"):
        copy_snapshot(small_world, tmp_path, version)
    return Publications(tmp_path, checks=[can_be_opened(tmp_path)])


def test_what_can_be_opened_is_published_though_this_process_has_it_open(
    publications: Publications, tmp_path: Path
) -> None:
    opened = open_snapshot(tmp_path / "v1")
    assert publications.publish("v1").version == "v1"
    opened.close()


def test_what_cannot_be_opened_is_refused_by_file_and_the_present_one_stays(
    publications: Publications, tmp_path: Path
) -> None:
    publications.publish("v1")
    ItemIds.of(list(ItemIds.open(tmp_path / "v2"))[1:]).write(tmp_path / "v2")
    vouch(tmp_path / "v2")
    with pytest.raises(PublicationRefused, match=r"v2: .*: item ids: found 399, expected 400 by the manifest"):
        publications.publish("v2")
    assert publications.wanted() == "v1"


def test_a_trial_that_dies_or_hangs_refuses(publications: Publications, tmp_path: Path) -> None:
    np.save(tmp_path / "v2" / layout.INTEREST_VECTORS, np.zeros(3))
    (tmp_path / "v2" / layout.ITEM_ID_OFFSETS).write_bytes(b"\xff")
    vouch(tmp_path / "v2")
    with pytest.raises(PublicationRefused, match="v2: "):
        publications.publish("v2")
    hasty = Publications(tmp_path, checks=[can_be_opened(tmp_path, timeout=0.01)])
    with pytest.raises(PublicationRefused, match=r"v1: not opened within 0.01 s"):
        hasty.publish("v1")


def vouch(directory: Path) -> None:
    """Write the manifest anew with the checksums of the files as they are."""
    manifest = layout.read_manifest(directory)
    manifest.checksums.update(layout.file_checksums(directory))
    layout.write_manifest(directory, manifest)
