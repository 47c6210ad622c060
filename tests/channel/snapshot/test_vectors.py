from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.snapshot.vectors import ItemVectors, RowRanges

N, D = 3_000, 8
OFFSETS = np.array([0, 10, 10, 500, 1_200, 1_201, 2_900], np.int64)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(5, D)).astype(np.float32)


def ranges_of(*categories: int) -> RowRanges:
    allowed = np.zeros(len(OFFSETS), np.bool_)
    allowed[list(categories)] = True
    return RowRanges.of_categories(allowed, OFFSETS)


def best_by_sorting(vectors: np.ndarray, query: np.ndarray, k: int, rows: np.ndarray) -> list[int]:
    return sorted(rows.tolist(), key=lambda row: -float(vectors[row] @ query))[:k]


def test_neighbouring_categories_are_one_range() -> None:
    ranges = ranges_of(1, 2, 3, 5)
    assert ranges.starts.tolist() == [0, 1_200]
    assert ranges.ends.tolist() == [500, 1_201]
    assert len(ranges) == 501


def test_empty_categories_have_no_rows() -> None:
    assert len(ranges_of(2)) == 0
    assert len(ranges_of()) == 0


@given(
    categories=st.sets(st.integers(1, 6)),
    pieces=st.lists(st.tuples(st.integers(0, N), st.integers(0, N)).map(sorted), max_size=5),
)
def test_cutting_ranges_is_the_intersection_of_their_rows(categories: set[int], pieces: list[list[int]]) -> None:
    ranges = ranges_of(*categories)
    starts, ends = (np.array([piece[i] for piece in pieces], np.int64) for i in (0, 1))
    expected = {row for start, end in pieces for row in range(start, end)} & set(ranges.rows().tolist())
    found = ranges.within(RowRanges.union(starts, ends)).rows().tolist()
    assert found == sorted(expected)


@pytest.mark.parametrize("k", [1, 7, 60, 1_000, 5_000])
@pytest.mark.parametrize("categories", [(1,), (3,), (1, 4, 6), (1, 2, 3, 4, 5, 6)])
def test_exact_search_finds_what_sorting_finds(
    vectors: np.ndarray, queries: np.ndarray, k: int, categories: tuple[int, ...]
) -> None:
    ranges = ranges_of(*categories)
    for query, hits in zip(queries, ItemVectors(vectors).search_exactly(queries, k, ranges), strict=True):
        assert hits.rows.tolist() == best_by_sorting(vectors, query, k, ranges.rows())
        np.testing.assert_allclose(hits.scores, vectors[hits.rows] @ query, rtol=1e-5, atol=1e-6)


def test_several_queries_find_what_each_finds_alone(vectors: np.ndarray, queries: np.ndarray) -> None:
    store, ranges = ItemVectors(vectors), ranges_of(3, 6)
    together = store.search_exactly(queries, 20, ranges)
    for i, hits in enumerate(together):
        assert hits.rows.tolist() == store.search_exactly(queries[i : i + 1], 20, ranges)[0].rows.tolist()


@pytest.mark.parametrize("kind", ["flat", "ivf", "gpu"])
def test_every_index_stays_inside_the_ranges_and_leaves_unavailable_rows_out(
    vectors: np.ndarray, queries: np.ndarray, kind: str
) -> None:
    store, ranges = with_index(vectors, kind), ranges_of(3, 5)
    unavailable = np.zeros(N, np.bool_)
    unavailable[100:400] = True
    expected = [row for row in ranges.rows() if not unavailable[row]]
    for query, hits in zip(queries, store.search_openly(queries, 30, ranges, unavailable), strict=True):
        # All lists are probed, so every kind is exact here.
        assert hits.rows.tolist() == best_by_sorting(vectors, query, 30, np.array(expected))


@pytest.mark.parametrize("kind", ["flat", "ivf", "gpu"])
def test_a_search_that_may_find_nothing_finds_nothing(vectors: np.ndarray, queries: np.ndarray, kind: str) -> None:
    store = with_index(vectors, kind)
    everything_sold = np.ones(N, np.bool_)
    assert all(len(hits.rows) == 0 for hits in store.search_openly(queries, 30, ranges_of(2)))
    assert all(len(hits.rows) == 0 for hits in store.search_openly(queries, 30, ranges_of(1), everything_sold))


def test_an_over_fetched_index_searches_exactly_where_too_little_is_allowed(
    vectors: np.ndarray, queries: np.ndarray
) -> None:
    # Category 1 has 10 of 3,000 rows: an index that returns 2,048 neighbours has not seen all of them.
    hits = with_index(vectors, "gpu").search_openly(queries, 10, ranges_of(1))
    assert [sorted(hit.rows.tolist()) for hit in hits] == [list(range(10))] * len(queries)


def test_scores_that_are_not_numbers_are_never_hits(queries: np.ndarray) -> None:
    broken = np.random.default_rng(3).normal(size=(2_900, D)).astype(np.float32)
    broken[::2] = np.nan
    (hits, *_) = ItemVectors(broken).search_exactly(queries, 50, ranges_of(6))
    assert len(hits.rows) == 50
    assert (hits.rows % 2 == 1).all()


def test_a_file_of_the_wrong_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnavailable, match=r"item_vectors\.npy: cannot be mapped"):
        ItemVectors.open(tmp_path, "flat", 0)
    np.save(tmp_path / layout.ITEM_VECTORS, np.zeros((3, 2), np.float64))
    with pytest.raises(SnapshotUnavailable, match="found float64"):
        ItemVectors.open(tmp_path, "flat", 0)
    np.save(tmp_path / layout.ITEM_VECTORS, np.zeros((3, 2), np.float32))
    with pytest.raises(SnapshotUnavailable, match="found 'hnsw', expected 'flat' or 'ivf'"):
        ItemVectors.open(tmp_path, "hnsw", 0)
    with pytest.raises(SnapshotUnavailable, match=r"items\.faiss: cannot be read"):
        ItemVectors.open(tmp_path, "ivf", 0)
    faiss.write_index(ivf_index(np.zeros((5, 2), np.float32), 1), str(tmp_path / layout.ITEM_INDEX))
    with pytest.raises(SnapshotUnavailable, match="found 5 × 2"):
        ItemVectors.open(tmp_path, "ivf", 0)


def test_an_ivf_index_is_read_from_the_snapshot(tmp_path: Path, vectors: np.ndarray, queries: np.ndarray) -> None:
    np.save(tmp_path / layout.ITEM_VECTORS, vectors)
    faiss.write_index(ivf_index(vectors, 16), str(tmp_path / layout.ITEM_INDEX))
    store = ItemVectors.open(tmp_path, "ivf", 16)
    exact = store.search_exactly(queries, 20, ranges_of(3, 6))
    for a, b in zip(exact, store.search_openly(queries, 20, ranges_of(3, 6)), strict=True):
        assert a.rows.tolist() == b.rows.tolist()


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS can use a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / layout.ITEM_VECTORS, np.zeros((3, 2), np.float32))
    with pytest.raises(SnapshotUnavailable, match="install faiss-gpu"):
        ItemVectors.open(tmp_path, "flat", 0, gpu=True)


def test_the_fewer_rows_are_allowed_the_more_lists_are_probed(vectors: np.ndarray, queries: np.ndarray) -> None:
    # One of 16 lists holds next to none of category 1's 10 rows; 300 times as many probes are all of them.
    store = ItemVectors(vectors, ivf=ivf_index(vectors, 16), num_probes=1, exact_below=0)
    assert [len(hits.rows) for hits in store.search_openly(queries, 10, ranges_of(1))] == [10] * len(queries)


def test_few_allowed_rows_are_searched_exactly_despite_an_index(vectors: np.ndarray, queries: np.ndarray) -> None:
    # An index over other vectors shows whether it was asked.
    store = ItemVectors(vectors, ivf=ivf_index(-vectors, 16), num_probes=16, exact_below=1_000)
    for categories, same in (((1, 3), True), ((1, 3, 4, 6), False)):
        ranges = ranges_of(*categories)
        exact, openly = store.search_exactly(queries, 5, ranges), store.search_openly(queries, 5, ranges)
        assert all((a.rows.tolist() == b.rows.tolist()) is same for a, b in zip(exact, openly, strict=True))


def ivf_index(vectors: np.ndarray, num_lists: int) -> faiss.IndexIVFFlat:
    dim = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(vectors)
    index.add(vectors)
    return index


def with_index(vectors: np.ndarray, kind: str) -> ItemVectors:
    if kind == "ivf":
        return ItemVectors(vectors, ivf=ivf_index(vectors, 16), num_probes=16, exact_below=0)
    if kind == "gpu":
        # A GPU index answers as this one does: whole, without a selector.
        index = faiss.IndexFlatIP(D)
        index.add(vectors)
        return ItemVectors(vectors, gpu=index)
    return ItemVectors(vectors)


@given(st.integers(0, 2**16), st.integers(1, 40))
def test_slices_are_searched_as_ranges_are(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    searched = ItemVectors(rng.normal(size=(200, 4)).astype(np.float32))
    unavailable = rng.random(200) < 0.3
    query = rng.normal(size=4).astype(np.float32)
    edges = np.sort(rng.choice(201, 6, replace=False))
    starts, ends = edges[::2], edges[1::2]
    for hits, start, end in zip(searched.search_slices(query, k, starts, ends, unavailable), starts, ends, strict=True):
        (exact,) = searched.search_exactly(
            query[None], k, RowRanges(starts[starts == start], ends[ends == end]), unavailable
        )
        order = np.argsort(-hits.scores)
        assert hits.rows[order].tolist() == exact.rows.tolist()
        np.testing.assert_allclose(hits.scores[order], exact.scores, rtol=1e-4, atol=1e-5)
