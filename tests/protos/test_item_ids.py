"""Item ids of a snapshot: row → id and id → row, whatever the ids are made of."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity import layout
from serendipity.item_ids import UNKNOWN, ItemIds

# Any id but lone surrogates, which no message and no file can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids_of_a_catalogue = st.lists(texts, unique=True, max_size=40)

FILES = (layout.ITEM_ID_TEXT, layout.ITEM_ID_OFFSETS, layout.ITEM_ID_HASHES, layout.ITEM_ID_ROWS)


def reopened(ids: ItemIds, directory: Path) -> ItemIds:
    ids.write(directory)
    return ItemIds.open(directory)


@given(ids=ids_of_a_catalogue, others=st.lists(texts, max_size=10), data=st.data())
@example(
    ids=["", "\x00", "a", "a\x00", "\u00e9", "e\u0301", "🦊", "用户", "\u202e", "a" * 1_000], others=["e"], data=None
)
@example(ids=[], others=["", "a"], data=None)
def test_every_id_has_its_row_and_every_row_its_id(
    ids: list[str], others: list[str], data: st.DataObject | None
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        laid_out = ItemIds.of(ids)
        for item_ids in (laid_out, reopened(laid_out, Path(directory))):
            assert len(item_ids) == len(ids)
            assert list(item_ids) == [item_ids[row] for row in range(len(ids))] == ids
            rows = item_ids.rows_of(ids)
            assert rows.dtype == np.int64
            assert rows.tolist() == list(range(len(ids)))
            asked = [*others, *ids[::-1], *others, *ids[:3]]
            expected = [ids.index(asked_for) if asked_for in ids else UNKNOWN for asked_for in asked]
            assert item_ids.rows_of(asked).tolist() == expected
            some = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=9)) if data and ids else []
            assert item_ids.of_rows(np.array(some, np.int64)) == [ids[row] for row in some]


def test_what_is_nearly_an_id_is_unknown() -> None:
    item_ids = ItemIds.of(["item-1", "item-2", "caf\u00e9"])
    unknown = ["", "item-", "item-11", "Item-1", "item-1 ", "cafe\u0301", "\u00e9"]
    assert item_ids.rows_of(unknown).tolist() == [UNKNOWN] * len(unknown)
    assert item_ids.rows_of([]).tolist() == []
    assert item_ids.of_rows(np.empty(0, np.int64)) == []


def test_without_items_every_id_is_unknown(tmp_path: Path) -> None:
    for item_ids in (ItemIds.of([]), reopened(ItemIds.of([]), tmp_path)):
        assert item_ids.rows_of(["a", ""]).tolist() == [UNKNOWN, UNKNOWN]
        assert list(item_ids) == []


def test_an_id_that_occurs_twice_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="found 'ü' twice; expected each once"):
        ItemIds.of(["a", "ü", "b", "ü"])


def test_many_ids_come_back(tmp_path: Path) -> None:
    ids = [f"{i * 7919 % 100_003:x}-é{i}" for i in range(50_000)]
    item_ids = reopened(ItemIds.of(ids), tmp_path)
    rows = np.random.default_rng(0).permutation(len(ids))
    assert item_ids.of_rows(rows) == [ids[row] for row in rows.tolist()]
    assert item_ids.rows_of([ids[row] for row in rows.tolist()]).tolist() == rows.tolist()
    assert (item_ids.rows_of([f"{item_id}?" for item_id in ids[:1_000]]) == UNKNOWN).all()


def test_what_is_mapped_is_not_written_to(tmp_path: Path) -> None:
    item_ids = reopened(ItemIds.of(["a", "b", "c"]), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    rows = item_ids.rows_of(["c", "a"])
    rows += 1
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    ItemIds.of(["a", "b"]).write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises((OSError, ValueError), match=missing):
        ItemIds.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        (
            layout.ITEM_ID_OFFSETS,
            np.zeros(3, np.int32),
            r"offsets\.npy: found int32 \(3,\), expected 1 dimension of int64",
        ),
        (layout.ITEM_ID_OFFSETS, np.array([0, 1], np.int64), "2 bytes, 2 offsets, 2 hashes and 2 rows"),
        (layout.ITEM_ID_OFFSETS, np.array([0, 1, 3], np.int64), "expected .* the number of bytes"),
        (layout.ITEM_ID_HASHES, np.zeros((2, 1), np.uint64), r"item_id_hashes\.npy: found uint64 \(2, 1\)"),
        (layout.ITEM_ID_HASHES, np.zeros(3, np.uint64), "3 hashes"),
        (layout.ITEM_ID_ROWS, np.zeros(2, np.int64), r"item_id_rows\.npy: found int64"),
        (layout.ITEM_ID_ROWS, np.zeros(1, np.int32), "1 rows"),
        (layout.ITEM_ID_OFFSETS, np.array([0, 5, 2], np.int64), r"item_id_offsets\.npy: found others, expected ascend"),
        (layout.ITEM_ID_HASHES, np.array([7, 3], np.uint64), r"item_id_hashes\.npy: found others, expected ascending"),
        (layout.ITEM_ID_ROWS, np.array([0, 2], np.int32), r"item_id_rows\.npy: found others, expected 0 to 1"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path, name: str, array: NDArray[np.generic], complaint: str
) -> None:
    ItemIds.of(["a", "b"]).write(tmp_path)
    np.save(tmp_path / name, array)
    with pytest.raises(ValueError, match=complaint):
        ItemIds.open(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    ItemIds.of(["a", "b"]).write(tmp_path)
    (tmp_path / layout.ITEM_ID_HASHES).write_bytes(b"")
    with pytest.raises(ValueError, match=r"item_id_hashes\.npy: cannot be mapped .*expected 1 dimension of uint64"):
        ItemIds.open(tmp_path)


def test_text_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    ItemIds.of(["abc", "def"]).write(tmp_path)
    (tmp_path / layout.ITEM_ID_TEXT).write_bytes(b"abcd")
    with pytest.raises(ValueError, match="found 4 bytes"):
        ItemIds.open(tmp_path)
