"""Publishing: bad snapshots are refused, the link is replaced whole, rolling back follows the publications."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.service.worker_status import WorkerStatus, read_statuses, write_status
from serendipity.channel.snapshot.publication import Publications
from serendipity.v1 import records_pb2


def write_snapshot(root: Path, version: str, created_at: int = 0) -> Path:
    """A directory that verifies: publication looks at the manifest and the checksums only."""
    directory = root / version
    directory.mkdir(parents=True)
    (directory / layout.ITEM_ID_TEXT).write_text(version)
    manifest = records_pb2.Manifest(layout_version=layout.LAYOUT_VERSION, version=version)
    manifest.created_at.seconds = created_at
    manifest.checksums.update(layout.file_checksums(directory))
    layout.write_manifest(directory, manifest)
    return directory


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    for created_at, version in enumerate(("a", "b", "c")):
        write_snapshot(tmp_path, version, created_at)
    return tmp_path


def test_the_published_snapshot_is_the_wanted_one(snapshots: Path) -> None:
    publications = Publications(snapshots)
    assert publications.wanted() == ""
    assert publications.publish("a").previous == ""
    assert publications.publish("b").previous == "a"
    assert publications.wanted() == "b"
    assert (snapshots / layout.CURRENT).resolve() == snapshots / "b"


def test_rolling_back_follows_the_publications_one_by_one(snapshots: Path) -> None:
    publications = Publications(snapshots)
    for version in ("a", "b", "c"):
        publications.publish(version)
    assert publications.rollback().version == "b"
    assert publications.rollback().version == "a"
    with pytest.raises(PublicationRefused, match="nothing was published before a"):
        publications.rollback()
    publications.publish("c")
    assert publications.rollback().version == "a"


def test_snapshots_go_a_while_after_they_were_last_written_or_wanted(snapshots: Path) -> None:
    moment = 1_700_000_000.0
    now = [moment]
    publications = Publications(snapshots, clock=lambda: now[0])
    for version in ("a", "b", "c"):
        os.utime(snapshots / version, (moment, moment))
    for version in ("a", "b"):
        publications.publish(version)
        now[0] += 1_000
    # "a" was wanted until the second publication, "b" still is, "c" never was.
    assert publications.prune(moment) == []
    assert publications.prune(moment + 500) == ["c"]
    assert publications.prune(moment + 1_500) == ["a"]
    assert publications.prune(moment + 9_000) == []
    assert [listed.version for listed in publications.listed()] == ["b"]
    assert publications.wanted() == "b"
    assert not list(snapshots.glob(".*.deleted"))


def test_a_rollback_passes_over_what_was_deleted(snapshots: Path) -> None:
    publications = Publications(snapshots)
    for version in ("a", "b", "c"):
        publications.publish(version)
    shutil.rmtree(snapshots / "b")
    assert publications.rollback().version == "a"
    shutil.rmtree(snapshots / "c")
    with pytest.raises(PublicationRefused, match="nothing was published before a"):
        publications.rollback()


def test_publishing_the_wanted_one_again_changes_nothing(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    publications.publish("b")
    publications.publish("b")
    assert publications.rollback().version == "a"


def test_the_history_is_the_way_back(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    publications.publish("b")
    assert json.loads((snapshots / "publications.json").read_text()) == ["a", "b"]
    publications.rollback()
    assert json.loads((snapshots / "publications.json").read_text()) == ["a"]


@pytest.mark.parametrize("version", ["", ".", "..", "current", "../a", "a/b", "missing", ".verified"])
def test_what_is_no_snapshot_is_refused(snapshots: Path, version: str) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    with pytest.raises(PublicationRefused):
        publications.publish(version)
    assert publications.wanted() == "a"


def test_a_damaged_snapshot_is_refused_by_file_and_the_present_one_stays(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    (snapshots / "b" / layout.ITEM_ID_TEXT).write_text("x")
    with pytest.raises(PublicationRefused, match=r"b/item_ids\.utf8: SHA-256"):
        publications.publish("b")
    assert publications.wanted() == "a"


def test_damage_after_a_publication_is_found_when_rolling_back(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    publications.publish("b")
    (snapshots / "a" / layout.ITEM_ID_TEXT).write_text("longer than before")
    with pytest.raises(PublicationRefused, match="SHA-256"):
        publications.rollback()
    assert publications.wanted() == "b"


def test_a_manifest_that_vouches_for_nothing_is_refused(snapshots: Path) -> None:
    manifest = layout.read_manifest(snapshots / "a")
    manifest.checksums.clear()
    layout.write_manifest(snapshots / "a", manifest)
    with pytest.raises(PublicationRefused, match="checksums: found none"):
        Publications(snapshots).publish("a")


def test_a_renamed_snapshot_is_refused(snapshots: Path) -> None:
    (snapshots / "b").rename(snapshots / "z")
    with pytest.raises(PublicationRefused, match="manifest's version: found 'b', expected 'z'"):
        Publications(snapshots).publish("z")


def test_a_later_layout_is_refused(snapshots: Path) -> None:
    path = snapshots / "a" / layout.MANIFEST
    written, later = layout.LAYOUT_VERSION, layout.LAYOUT_VERSION + 1
    path.write_text(path.read_text().replace(f'"layout_version": {written}', f'"layout_version": {later}'))
    with pytest.raises(PublicationRefused, match=f"layout_version: found {later}"):
        Publications(snapshots).publish("a")


def test_a_check_can_refuse_and_sees_both_snapshots(snapshots: Path) -> None:
    seen: list[tuple[str, Path | None]] = []

    def only_the_first(manifest: records_pb2.Manifest, wanted: Path | None) -> None:
        seen.append((manifest.version, wanted))
        if wanted:
            raise PublicationRefused(f"{manifest.version}: its model is not ready")

    publications = Publications(snapshots, checks=[only_the_first])
    publications.publish("a")
    with pytest.raises(PublicationRefused, match="not ready"):
        publications.publish("b")
    assert publications.wanted() == "a"
    assert seen == [("a", None), ("b", snapshots / "a")]


def test_a_gate_is_for_publishing_and_never_keeps_an_operator_from_rolling_back(snapshots: Path) -> None:
    def better_than_before(manifest: records_pb2.Manifest, wanted: Path | None) -> None:
        if wanted and manifest.version < wanted.name:
            raise PublicationRefused(f"{manifest.version}: worse than {wanted.name}")

    publications = Publications(snapshots, gates=[better_than_before])
    publications.publish("a")
    publications.publish("b")
    with pytest.raises(PublicationRefused, match="worse"):
        publications.publish("a")
    assert publications.rollback().version == "a"


def test_a_name_no_file_can_have_is_refused_like_any_other(snapshots: Path) -> None:
    with pytest.raises(PublicationRefused, match="wanted now: nothing"):
        Publications(snapshots).publish("a" * 5_000)


def test_a_disk_that_takes_no_history_is_told_with_what_is_wanted_now(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    (snapshots / f".publications.json.{os.getpid()}").mkdir()
    with pytest.raises(PublicationRefused, match="wanted now: b"):
        publications.publish("b")
    (snapshots / f".publications.json.{os.getpid()}").rmdir()
    assert publications.rollback().version == "a"


def test_the_list_is_newest_first_and_says_what_cannot_be_read(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("b")
    (snapshots / "a" / layout.MANIFEST).write_text("{")
    (snapshots / ".half-built").mkdir()
    listed = publications.listed()
    assert [(s.version, s.current) for s in listed] == [("c", False), ("b", True), ("a", False)]
    assert listed[0].manifest is not None
    assert listed[2].manifest is None
    assert "not a JSON object" in listed[2].error
    assert Publications(snapshots / "nowhere").listed() == []


def _link(snapshots: Path, version: str) -> None:
    """What a publication does before it dies: the link is replaced, the history is not."""
    (snapshots / ".current.1").symlink_to(version)
    (snapshots / ".current.1").replace(snapshots / layout.CURRENT)


def test_a_publication_that_died_before_its_history_is_mended(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    publications.publish("b")
    _link(snapshots, "c")
    assert publications.wanted() == "c"
    assert publications.rollback().version == "b"


def test_a_rollback_that_died_before_its_history_is_mended(snapshots: Path) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    publications.publish("b")
    _link(snapshots, "a")
    with pytest.raises(PublicationRefused, match="nothing was published before a"):
        publications.rollback()


def test_concurrent_publishers_leave_link_and_history_agreeing(snapshots: Path) -> None:
    def publish(version: str) -> None:
        for _ in range(10):
            Publications(snapshots).publish(version)

    threads = [threading.Thread(target=publish, args=(version,)) for version in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = json.loads((snapshots / "publications.json").read_text())
    assert history[-1] == Publications(snapshots).wanted()
    assert all(after != before for before, after in itertools.pairwise(history))


@pytest.mark.parametrize("damage", ["[", "{}", '[{"action": "publish"}]', "\x00"])
def test_a_damaged_history_is_begun_anew_and_keeps_nobody_from_publishing(snapshots: Path, damage: str) -> None:
    publications = Publications(snapshots)
    publications.publish("a")
    (snapshots / "publications.json").write_text(damage)
    assert publications.publish("b").previous == "a"
    # The link was known still, so there is a way back.
    assert publications.rollback().version == "a"


def test_a_history_nobody_may_read_refuses(snapshots: Path) -> None:
    (snapshots / "publications.json").mkdir()
    with pytest.raises(PublicationRefused, match=r"publications.json.*; wanted now: nothing"):
        Publications(snapshots).publish("a")


def test_workers_states_are_read_back_by_number_but_for_those_that_have_died(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as killed:
        pids = (os.getpid(), killed.pid, os.getppid())
        statuses = [WorkerStatus(n, pids[n], "v1", 5.0, "" if n else "b is damaged", 9000 + n) for n in (2, 0, 1)]
        for status in statuses:
            write_status(tmp_path / "workers", status)
        (tmp_path / "workers" / "9.json").write_text("{")
        assert read_statuses(tmp_path / "workers") == sorted(statuses, key=lambda s: s.worker)
        killed.kill()
    assert [status.worker for status in read_statuses(tmp_path / "workers")] == [0, 2]
