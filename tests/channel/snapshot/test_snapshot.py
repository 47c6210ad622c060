from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable, StoreUnavailable
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.snapshot.verification import verify_once
from serendipity.channel.state.state import AvailabilityOverlay
from serendipity.item_ids import UNKNOWN
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import NOW, SmallWorld


@pytest.fixture
def copy(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A snapshot that a test may damage."""
    directory = tmp_path / "snapshots" / small_world.version
    shutil.copytree(small_world.snapshot_dir, directory)
    return directory


def edit_manifest(directory: Path, edit: Callable[[dict[str, object]], None]) -> None:
    path = directory / layout.MANIFEST
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def is_open(snapshot: Snapshot) -> bool:
    try:
        return len(snapshot.users) > 0
    except StoreUnavailable:
        return False


def test_a_snapshot_says_what_its_manifest_says(small_world: SmallWorld, snapshot: Snapshot) -> None:
    contents = small_world.contents
    assert snapshot.versions.snapshot == small_world.version
    assert snapshot.versions.events_until.seconds == contents.events_until
    assert (snapshot.version, snapshot.events_until) == (small_world.version, contents.events_until)
    assert snapshot.versions.merge == contents.merge.id
    assert snapshot.tower_model == contents.tower.model_name
    assert list(snapshot.category_names) == contents.catalogue.categories
    assert list(snapshot.item_ids) == small_world.item_ids
    assert snapshot.unavailable.tolist() == (~contents.catalogue.available).tolist()
    items = np.arange(len(small_world.item_ids) + 1)
    assert snapshot.categories_of(items).tolist() == [0, *contents.catalogue.item_categories.tolist()]


def test_items_are_found_by_id_and_named_by_row(small_world: SmallWorld, snapshot: Snapshot) -> None:
    rows = np.array([7, 399, 0])
    ids = [small_world.item_ids[row] for row in rows]
    assert snapshot.item_ids.of_rows(rows) == ids
    assert snapshot.item_ids.rows_of([*ids, "in no catalogue"]).tolist() == [*rows.tolist(), UNKNOWN]
    # The last ten have no category.
    names = snapshot.category_names_of([*ids, "in no catalogue", ids[0]])
    assert names == {
        item_id: small_world.catalogue.paths[row][0] for item_id, row in zip(ids, rows, strict=True) if row != 399
    }


def test_availability_is_laid_over_both_ways(snapshot: Snapshot) -> None:
    sold, restocked = int(np.flatnonzero(~snapshot.unavailable)[0]), int(np.flatnonzero(snapshot.unavailable)[0])
    changes = {snapshot.item_ids[sold]: False, snapshot.item_ids[restocked]: True, "in no catalogue": False}
    unavailable = snapshot.unavailable_under(AvailabilityOverlay(1, changes))
    changed = np.flatnonzero(unavailable != snapshot.unavailable).tolist()
    assert changed == sorted([sold, restocked])


@pytest.mark.parametrize("available", [np.ones(3, np.bool_), np.ones(400, np.int8)])
def test_an_availability_array_that_does_not_fit_is_refused(copy: Path, available: np.ndarray) -> None:
    np.save(copy / layout.ITEM_AVAILABLE, available)
    with pytest.raises(SnapshotUnavailable, match=r"item_available\.npy: found"):
        open_snapshot(copy, verify=False)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (layout.MANIFEST, "manifest.json: cannot be read"),
        (layout.ITEM_VECTORS, "item_vectors.npy: missing"),
        (f"{layout.USERS}/data.mdb", "users.lmdb/data.mdb: missing"),
    ],
)
def test_a_missing_file_is_refused_by_name(copy: Path, name: str, complaint: str) -> None:
    (copy / name).unlink()
    with pytest.raises(SnapshotUnavailable, match=complaint):
        open_snapshot(copy)


def test_a_flipped_byte_is_refused_by_its_checksum(copy: Path) -> None:
    path = copy / layout.ITEM_VECTORS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SnapshotUnavailable, match=r"item_vectors\.npy: SHA-256: found"):
        open_snapshot(copy)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (
            lambda m: m.update(layout_version=layout.LAYOUT_VERSION + 1),
            f"layout_version: found {layout.LAYOUT_VERSION + 1}",
        ),
        (lambda m: m.update(category_offsets=[0]), "category_offsets: found 1 offsets"),
        (lambda m: m["category_offsets"].reverse(), "category_offsets"),
        (lambda m: m["vector_index"].update(dim=3), r"item_vectors\.npy: found shape \(400, 16\), expected \(400, 3\)"),
        (lambda m: m["vector_index"].update(kind="hnsw"), "found 'hnsw'"),
        (lambda m: m["tower"].update(interest_dim=7), r"interest_vectors\.npy: found shape"),
        (lambda m: m["counts"].update(items="399"), "found shape"),
        (
            lambda m: m["vector_index"].update(kind="ivf", category_list_offsets=list(range(13))),
            r"items\.faiss: cannot be read",
        ),
        (
            lambda m: m["merge"]["features"].pop(),
            r"merge\.onnx: cannot be used .*expected a merge model as ONNX, \d+ features",
        ),
        (lambda m: m["merge"].update(a_later_field=1), "not a manifest"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    copy: Path, edit: Callable[[dict[str, object]], None], complaint: str
) -> None:
    edit_manifest(copy, edit)
    with pytest.raises(SnapshotUnavailable, match=complaint):
        open_snapshot(copy, verify=False)
    # Nothing stays open behind the refusal: the repaired snapshot opens.
    shutil.rmtree(copy)


def test_an_index_that_is_not_kept_apart_by_category_is_refused(small_world: SmallWorld, tmp_path: Path) -> None:
    directory = write_snapshot(small_world.contents, tmp_path, created_at=NOW, index=IndexConfig(exact_below=100))
    edit_manifest(directory, lambda manifest: manifest["vector_index"].pop("category_list_offsets"))  # type: ignore[attr-defined]
    with pytest.raises(SnapshotUnavailable, match="category_list_offsets"):
        open_snapshot(directory, verify=False)


def test_an_index_of_other_categories_is_refused(small_world: SmallWorld, tmp_path: Path) -> None:
    directory = write_snapshot(small_world.contents, tmp_path, created_at=NOW, index=IndexConfig(exact_below=100))

    def forget_a_category(manifest: dict[str, object]) -> None:
        manifest["vector_index"]["category_list_offsets"].pop(1)  # type: ignore[index]

    edit_manifest(directory, forget_a_category)
    with pytest.raises(SnapshotUnavailable, match="category_list_offsets"):
        open_snapshot(directory, verify=False)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories in the order in which their files are read through."""
    found: list[Path] = []
    verify_files = layout.verify_files

    def note(directory: Path, *told: Any) -> records_pb2.Manifest:
        found.append(directory)
        return verify_files(directory, *told)

    monkeypatch.setattr(layout, "verify_files", note)
    return found


def test_checksums_are_verified_once_per_host(copy: Path, verified: list[Path]) -> None:
    for _ in range(3):
        verify_once(copy)
    assert verified == [copy]
    # Whoever writes a file and hides it has to set back its time, which is noted as well.
    path = copy / layout.ITEM_VECTORS
    times = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(3):
        with pytest.raises(layout.SnapshotError, match=r"item_vectors\.npy: SHA-256"):
            verify_once(copy)
    assert verified == [copy] * 2


def test_workers_that_ask_together_read_the_files_once(copy: Path, verified: list[Path]) -> None:
    with ThreadPoolExecutor(8) as workers:
        versions = [manifest.version for manifest in workers.map(verify_once, [copy] * 8)]
    assert versions == [versions[0]] * 8
    assert verified == [copy]


def test_on_a_volume_that_cannot_be_written_every_process_verifies(copy: Path, verified: list[Path]) -> None:
    # A file where the stamps' directory should be stops everyone, the superuser included.
    (copy.parent / ".verified").touch()
    assert verify_once(copy).version == verify_once(copy).version
    assert verified == [copy] * 2


def test_without_a_snapshot_nothing_is_leased() -> None:
    holder = SnapshotHolder()
    assert holder.version == ""
    with pytest.raises(SnapshotUnavailable, match="publish one"):
        holder.acquire()


def test_a_replaced_snapshot_closes_when_its_last_request_ends(small_world: SmallWorld, copy: Path) -> None:
    holder = SnapshotHolder(open_snapshot(small_world.snapshot_dir))
    lease = holder.acquire()
    old = lease.snapshot
    work = lease.split()
    new = holder.swap(copy)
    assert holder.acquire().snapshot is new
    assert is_open(old)
    lease.release()
    lease.release()
    assert is_open(old)
    work.release()
    assert not is_open(old)
    holder.close()


def test_a_replaced_snapshot_that_nobody_uses_closes_at_once(small_world: SmallWorld, copy: Path) -> None:
    old = open_snapshot(small_world.snapshot_dir)
    holder = SnapshotHolder(old)
    new = holder.swap(copy)
    assert not is_open(old)
    holder.close()
    assert not is_open(new)


def test_a_bad_snapshot_is_refused_and_the_present_one_stays(small_world: SmallWorld, copy: Path) -> None:
    present = open_snapshot(small_world.snapshot_dir)
    holder = SnapshotHolder(present)
    (copy / layout.ITEM_VECTORS).unlink()
    with pytest.raises(SnapshotUnavailable):
        holder.swap(copy)
    with holder.acquire() as lease:
        assert lease.snapshot is present
    assert is_open(present)
    holder.close()


def test_rolling_back_to_a_snapshot_that_still_drains_works(small_world: SmallWorld, copy: Path) -> None:
    holder = SnapshotHolder(open_snapshot(small_world.snapshot_dir))
    draining = holder.acquire()
    holder.swap(copy)
    again = holder.swap(small_world.snapshot_dir)
    draining.release()
    assert not is_open(draining.snapshot)
    assert is_open(again)
    holder.close()


def test_leases_from_many_threads_never_see_a_closed_snapshot(small_world: SmallWorld, copy: Path) -> None:
    holder = SnapshotHolder(open_snapshot(small_world.snapshot_dir))
    failures: list[BaseException] = []
    swapped = threading.Event()

    def read() -> None:
        try:
            while not swapped.is_set():
                with holder.acquire() as lease:
                    assert lease.snapshot.users.read(layout.DEFAULT_USER) is not None
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for directory in [copy, small_world.snapshot_dir] * 5:
        holder.swap(directory, verify=False)
    swapped.set()
    for reader in readers:
        reader.join()
    holder.close()
    assert not failures


def test_derived_availability_follows_the_generation(small_world: SmallWorld) -> None:
    holder = SnapshotHolder(open_snapshot(small_world.snapshot_dir))
    with holder.acquire() as lease:
        row = int(np.flatnonzero(~lease.snapshot.unavailable)[0])
        sold = AvailabilityOverlay(1, {lease.snapshot.item_ids[row]: False})
    with holder.acquire() as lease:
        assert not lease_unavailable(holder, AvailabilityOverlay())[row]
        first = lease_unavailable(holder, sold)
        assert first[row]
        assert lease_unavailable(holder, sold) is first
        assert not lease_unavailable(holder, AvailabilityOverlay(2))[row]
    holder.close()


def test_an_overlay_is_prepared_before_requests_see_it_and_survives_a_swap(small_world: SmallWorld, copy: Path) -> None:
    holder = SnapshotHolder()
    holder.swap(copy)
    row = int(np.flatnonzero(~lease_unavailable(holder, AvailabilityOverlay()))[0])
    holder.prepare(AvailabilityOverlay(3, {small_world.item_ids[row]: False}))
    # Requests that still see an earlier overlay take what is derived already, and derive nothing themselves.
    assert lease_unavailable(holder, AvailabilityOverlay(2))[row]
    holder.swap(small_world.snapshot_dir)
    assert lease_unavailable(holder, AvailabilityOverlay(2))[row]
    holder.close()


def lease_unavailable(holder: SnapshotHolder, overlay: AvailabilityOverlay) -> np.ndarray:
    lease = holder.acquire()
    try:
        return lease.unavailable(overlay)
    finally:
        lease.release()
