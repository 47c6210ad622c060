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
from tests.channel.served import NO_TRITON, copy_snapshot
from tests.fixtures.small_world import SmallWorld

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


def test_what_is_sent_is_fetched_and_published_elsewhere(
    small_world: SmallWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("first", "second"):
        copy_snapshot(small_world, tmp_path / "build", version)
    builder, host, store = Publications(tmp_path / "build"), Publications(tmp_path / "host"), tmp_path / "store"
    assert run("send", "--snapshots", tmp_path / "build", store) == 1
    assert "nothing is published; name the VERSION" in capsys.readouterr().err
    builder.publish("first")
    assert run("send", "--snapshots", tmp_path / "build", store) == 0
    assert run("fetch", "--snapshots", tmp_path / "host", store) == 0
    assert host.wanted() == "first"
    assert run("send", "--snapshots", tmp_path / "build", store, "second") == 0
    assert run("fetch", "--snapshots", tmp_path / "host", store) == 0
    assert run("fetch", "--snapshots", tmp_path / "host", store) == 0
    assert (host.wanted(), host.earlier()) == ("second", ["first"])
    # The store says what is wanted: back.
    assert run("send", "--snapshots", tmp_path / "build", store, "first") == 0
    assert run("fetch", "--snapshots", tmp_path / "host", store) == 0
    assert host.wanted() == "first"
    told = capsys.readouterr().out
    assert told.count("\nfetched ") == 2
    assert told.count("\npublished ") == 3


def test_what_is_fetched_and_cannot_be_served_is_not_published(
    small_world: SmallWorld, snapshots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert run("send", "--snapshots", snapshots, store, "b") == 0
    assert run("fetch", "--snapshots", tmp_path / "host", store) == 1
    assert "serendip snapshot fetch: b: " in capsys.readouterr().err
    copy_snapshot(small_world, tmp_path / "build", "good")
    assert run("send", "--snapshots", tmp_path / "build", store, "good") == 0
    assert run("fetch", "--snapshots", tmp_path / "host", store, "--triton-url", NO_TRITON) == 1
    assert f"does not answer on Triton at {NO_TRITON}" in capsys.readouterr().err
    assert Publications(tmp_path / "host").wanted() == ""


def test_fetching_goes_on_until_it_is_told_to_end(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_snapshot(small_world, tmp_path / "build", "first")
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            assert run("send", "--snapshots", tmp_path / "build", tmp_path / "store", "first") == 0
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(snapshot.time, "sleep", pause)
    monkeypatch.setattr(snapshot.signal, "signal", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run("fetch", "--snapshots", tmp_path / "host", tmp_path / "store", "--every", "7")
    assert looks == [7, 7]
    assert "store/wanted" in capsys.readouterr().err
    assert Publications(tmp_path / "host").wanted() == "first"


def test_an_address_that_is_none_of_a_triton_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("fetch", "--snapshots", tmp_path / "host", tmp_path / "store", "--triton-url", "triton")
    assert "found 'triton', expected host:port" in capsys.readouterr().err
