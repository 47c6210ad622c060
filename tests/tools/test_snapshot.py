"""The command around snapshots on disk."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools import snapshot
from serendipity.v1 import records_pb2

DAY = 86_400


def write_snapshot(root: Path, version: str, age_days: float) -> None:
    directory = root / version
    directory.mkdir(parents=True)
    (directory / layout.ITEM_ID_TEXT).write_text(f'["{version}"]')
    manifest = records_pb2.Manifest(layout_version=layout.LAYOUT_VERSION, version=version)
    manifest.created_at.seconds = int(time.time() - age_days * DAY)
    manifest.checksums.update(layout.file_checksums(directory))
    layout.write_manifest(directory, manifest)
    os.utime(directory, (time.time() - age_days * DAY,) * 2)


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    for age, version in ((20, "a"), (10, "b"), (5, "c"), (1, "d")):
        write_snapshot(tmp_path, version, age)
    Publications(tmp_path).publish("a")
    return tmp_path


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    snapshot.add_arguments(parser)
    return snapshot.run(parser.parse_args([*map(str, arguments)]))


def test_what_cannot_be_opened_is_not_published(snapshots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(snapshots / "b")
    write_snapshot(snapshots, "b", 0)
    assert run("publish", "--snapshots", snapshots, "--no-gate", "b") == 1
    assert "serendip snapshot publish: " in capsys.readouterr().err
    assert Publications(snapshots).wanted() == "a"
