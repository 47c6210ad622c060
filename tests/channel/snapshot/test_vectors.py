from __future__ import annotations

import itertools
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.snapshot.row_ranges import OwnedRanges, RowRanges
from serendipity.channel.snapshot.vectors import InvertedFile, ItemVectors
from serendipity.offline.snapshot.index import IndexConfig, Queries, build_index
from serendipity.v1 import records_pb2

N, D = 3_000, 8
OFFSETS = np.array([0, 10, 10, 500, 1_200, 1_201, 2_900], np.int64)
"""Six categories, the second without items; the last 100 rows have none."""

KINDS = ["flat", "ivf", "gpu"]

FREE = np.zeros(N, np.bool_)
"""Everything is available."""


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(5, D)).astype(np.float32)


def allowing(*categories: int) -> NDArray[np.bool_]:
    allowed = np.zeros(len(OFFSETS), np.bool_)
    allowed[list(categories)] = True
    return allowed


def ranges_of(*categories: int) -> RowRanges:
    return RowRanges.of_categories(allowing(*categories), OFFSETS)


def find(
    store: ItemVectors,
    query: NDArray[np.float32],
    k: int,
    categories: tuple[int, ...],
    unavailable: NDArray[np.bool_] = FREE,
) -> list[int]:
    """Rows found, ascending."""
    rows = store.best(query, k, allowing(*categories), ranges_of(*categories), unavailable)
    assert len(set(rows.tolist())) == len(rows)
    return sorted(rows.tolist())


def by_sorting(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    k: int,
    rows: NDArray[np.int64],
    unavailable: NDArray[np.bool_] = FREE,
) -> list[int]:
    """The best rows that are available, ascending."""
    available = [row for row in rows.tolist() if not unavailable[row]]
    return sorted(sorted(available, key=lambda row: -float(vectors[row] @ query))[:k])


def asked_near(
    vectors: NDArray[np.float32], offsets: NDArray[np.int64], count: int, seed: int, known: int = 0
) -> Queries:
    """Queries near items, each of somebody who knows the nearest few categories."""
    rng = np.random.default_rng(seed)
    near = vectors[rng.choice(offsets[-1], count)] + 0.3 * rng.normal(size=(count, vectors.shape[1]))
    allowed = np.ones((count, len(offsets)), np.bool_)
    for i, query in enumerate(near):
        allowed[i, nearest_categories(vectors, offsets, query)[:known]] = False
    return Queries(near.astype(np.float32), allowed)


def nearest_categories(
    vectors: NDArray[np.float32], offsets: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Category numbers, the one whose items are nearest on average first."""
    scores = vectors @ query
    means = [scores[a:b].mean() if b > a else -np.inf for a, b in itertools.pairwise(offsets)]
    return 1 + np.argsort(means)[::-1]


def ivf_of(
    vectors: NDArray[np.float32],
    num_lists: int = 24,
    offsets: NDArray[np.int64] = OFFSETS,
    min_recall: float = 1.0,
    known: int = 0,
) -> tuple[faiss.Index, records_pb2.VectorIndex]:
    """An index kept apart by category as a builder makes it, and what the manifest says of it."""
    queries = asked_near(vectors, offsets, 64, 5, known)
    config = IndexConfig(exact_below=0, num_lists=num_lists, min_recall=min_recall)
    built = build_index(vectors, offsets, queries, config)
    assert built.index is not None
    return built.index, built.description


def inverted(vectors: NDArray[np.float32], num_probes: int = 0) -> InvertedFile:
    index, said = ivf_of(vectors)
    return InvertedFile(index, np.array(said.category_list_offsets, np.int64), num_probes or int(index.nlist))


def with_index(vectors: NDArray[np.float32], kind: str) -> ItemVectors:
    if kind == "ivf":
        return ItemVectors(vectors, ivf=inverted(vectors), exact_below=0)
    if kind == "gpu":
        # A GPU index answers as this one does: whole, without a selector.
        index = faiss.IndexFlatIP(D)
        index.add(vectors)
        return ItemVectors(vectors, gpu=index)
    return ItemVectors(vectors)


@pytest.fixture(scope="module")
def stores(vectors: NDArray[np.float32]) -> dict[str, ItemVectors]:
    return {kind: with_index(vectors, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", ["flat", "gpu"])
@pytest.mark.parametrize("k", [1, 7, 60, 1_000, 5_000])
@pytest.mark.parametrize("categories", [(1,), (3,), (1, 4, 6), (1, 2, 3, 4, 5, 6)])
def test_the_best_rows_are_those_that_sorting_finds(
    stores: dict[str, ItemVectors],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    kind: str,
    k: int,
    categories: tuple[int, ...],
) -> None:
    for query in queries:
        expected = by_sorting(vectors, query, k, ranges_of(*categories).rows())
        assert find(stores[kind], query, k, categories) == expected


@pytest.mark.parametrize("kind", ["flat", "gpu"])
def test_searches_stay_inside_the_ranges_and_leave_unavailable_rows_out(
    stores: dict[str, ItemVectors], vectors: NDArray[np.float32], queries: NDArray[np.float32], kind: str
) -> None:
    unavailable = np.zeros(N, np.bool_)
    unavailable[100:400] = True
    for query in queries:
        expected = by_sorting(vectors, query, 30, ranges_of(3, 5).rows(), unavailable)
        assert find(stores[kind], query, 30, (3, 5), unavailable) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_may_find_nothing_finds_nothing(
    stores: dict[str, ItemVectors], queries: NDArray[np.float32], kind: str
) -> None:
    everything_sold = np.ones(N, np.bool_)
    for query in queries:
        assert find(stores[kind], query, 30, (2,)) == []
        assert find(stores[kind], query, 30, ()) == []
        assert find(stores[kind], query, 30, (1,), everything_sold) == []
        assert find(stores[kind], query, 30, (1, 3, 4, 6), everything_sold) == []


@given(
    seed=st.integers(0, 2**16),
    k=st.integers(1, 200),
    categories=st.sets(st.integers(1, 6)),
    sold=st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
    probes=st.integers(1, 24),
    kind=st.sampled_from(KINDS),
)
def test_as_many_are_found_as_may_be_shown_whatever_is_sold_out_and_however_few_lists_are_read(
    vectors: NDArray[np.float32],
    few_probes: dict[int, InvertedFile],
    stores: dict[str, ItemVectors],
    seed: int,
    k: int,
    categories: set[int],
    sold: float,
    probes: int,
    kind: str,
) -> None:
    rng = np.random.default_rng(seed)
    unavailable = rng.random(N) < sold
    query = (rng.normal(size=D) * rng.choice([0.01, 1, 100])).astype(np.float32)
    store = ItemVectors(vectors, ivf=few_probes[probes], exact_below=0) if kind == "ivf" else stores[kind]
    some = tuple(categories)
    found = find(store, query, k, some, unavailable)
    may_be_shown = [row for row in ranges_of(*some).rows().tolist() if not unavailable[row]]
    assert len(found) == min(k, len(may_be_shown))
    assert set(found) <= set(may_be_shown)
    if kind != "ivf":
        assert found == by_sorting(vectors, query, k, ranges_of(*some).rows(), unavailable)


@pytest.fixture(scope="module")
def few_probes(vectors: NDArray[np.float32]) -> dict[int, InvertedFile]:
    index, said = ivf_of(vectors)
    offsets = np.array(said.category_list_offsets, np.int64)
    return {probes: InvertedFile(index, offsets, probes) for probes in range(1, 25)}


def test_an_over_fetched_index_searches_exactly_where_too_little_is_allowed(
    stores: dict[str, ItemVectors], queries: NDArray[np.float32]
) -> None:
    # Category 1 has 10 of 3,000 rows: an index that returns 2,048 neighbours has not seen all of them.
    for query in queries:
        assert find(stores["gpu"], query, 10, (1,)) == list(range(10))


@pytest.fixture(scope="module")
def far_apart() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Forty categories of unlike size, each of some clusters round a centre of its own; and their offsets."""
    rng = np.random.default_rng(11)
    dim, sizes = 24, rng.integers(20, 1_500, 40)
    centres = rng.normal(size=(len(sizes), dim))
    parts = []
    for centre, size in zip(centres, sizes.tolist(), strict=True):
        around = centre + 0.5 * rng.normal(size=(8, dim))
        parts.append(around[rng.integers(8, size=size)] + 0.25 * rng.normal(size=(size, dim)))
    return np.concatenate(parts).astype(np.float32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@pytest.fixture(scope="module")
def approximate(far_apart: tuple[NDArray[np.float32], NDArray[np.int64]]) -> ItemVectors:
    """A search by an index as it is built by default, over clustered vectors."""
    vectors, offsets = far_apart
    index, said = ivf_of(vectors, num_lists=400, offsets=offsets, min_recall=0.95, known=5)
    assert said.num_probes < said.num_lists / 2
    file = InvertedFile(index, np.array(said.category_list_offsets, np.int64), said.num_probes)
    return ItemVectors(vectors, ivf=file, exact_below=0)


@pytest.mark.parametrize("restriction", ["all", "all but the nearest", "a third", "the farthest", "one"])
@pytest.mark.parametrize("sold", [0.0, 0.5])
def test_an_index_finds_nine_of_ten_of_the_best_under_any_restriction(
    far_apart: tuple[NDArray[np.float32], NDArray[np.int64]], approximate: ItemVectors, restriction: str, sold: float
) -> None:
    vectors, offsets = far_apart
    rng = np.random.default_rng(13)
    num_categories = len(offsets) - 1
    k, recalls = 300, []
    for query in asked_near(vectors, offsets, 40, 13).vectors:
        unavailable = rng.random(len(vectors)) < sold
        by_nearness = nearest_categories(vectors, offsets, query)
        some = {
            "all": by_nearness,
            "all but the nearest": by_nearness[5:],
            "a third": rng.permutation(by_nearness)[: num_categories // 3],
            "the farthest": by_nearness[-8:],
            "one": rng.permutation(by_nearness)[:1],
        }[restriction]
        allowed = np.zeros(num_categories + 1, np.bool_)
        allowed[some] = True
        ranges = RowRanges.of_categories(allowed, offsets)
        found = approximate.best(query, k, allowed, ranges, unavailable)
        rows = ranges.rows()[~unavailable[ranges.rows()]]
        assert len(found) == min(k, len(rows))
        assert np.isin(found, rows).all()
        exact = rows[np.argsort(-(vectors[rows] @ query), kind="stable")[: k // 3]]
        recalls.append(float(np.isin(exact, found).mean()))
    assert np.mean(recalls) >= 0.9


def test_an_index_reads_a_part_of_the_lists(
    far_apart: tuple[NDArray[np.float32], NDArray[np.int64]], approximate: ItemVectors
) -> None:
    """Else the recall above were that of an exact search."""
    vectors, offsets = far_apart
    rng = np.random.default_rng(17)
    allowed = np.ones(len(offsets), np.bool_)
    ranges, free = RowRanges.of_categories(allowed, offsets), np.zeros(len(vectors), np.bool_)
    missed = 0
    for _ in range(40):
        query = rng.normal(size=vectors.shape[1]).astype(np.float32)
        found = approximate.best(query, 100, allowed, ranges, free)
        missed += 100 - int(np.isin(np.argsort(-(vectors @ query))[:100], found).sum())
    assert missed > 0


def test_few_allowed_rows_are_searched_exactly_despite_an_index(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    # An index over other vectors shows whether it was asked.
    store = ItemVectors(vectors, ivf=inverted(-vectors), exact_below=1_000)
    for categories, same in (((1, 3), True), ((1, 3, 4, 6), False)):
        for query in queries:
            exact = by_sorting(vectors, query, 5, ranges_of(*categories).rows())
            assert (find(store, query, 5, categories) == exact) is same


def test_searches_from_several_threads_find_what_each_finds_alone(
    vectors: NDArray[np.float32], few_probes: dict[int, InvertedFile]
) -> None:
    store = ItemVectors(vectors, ivf=few_probes[3], exact_below=0)
    rng = np.random.default_rng(19)
    asked = [(rng.normal(size=D).astype(np.float32), tuple(rng.permutation(6)[:3] + 1)) for _ in range(60)]
    alone = [find(store, query, 40, categories) for query, categories in asked]
    together: list[list[list[int]]] = [[] for _ in range(4)]

    def search(mine: list[list[int]]) -> None:
        mine += [find(store, query, 40, categories) for query, categories in asked]

    threads = [threading.Thread(target=search, args=(mine,)) for mine in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 4


def test_scores_that_are_not_numbers_never_hide_those_that_are(queries: NDArray[np.float32]) -> None:
    """They are found as well, and whoever scores what is found sees what they are."""
    broken = np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)
    broken[::50] = np.nan
    inside = ranges_of(6).rows()
    of_numbers = inside[inside % 50 != 0]
    spared = 200 - (len(inside) - len(of_numbers))
    assert spared > 100
    for query in queries:
        found = find(ItemVectors(broken), query, 200, (6,))
        assert len(found) == 200
        assert set(by_sorting(broken, query, spared, of_numbers)) <= set(found)


def slices(drawn: list[tuple[int, int, int]], num_owners: int) -> OwnedRanges:
    drawn = sorted(drawn, key=lambda piece: piece[2])
    columns = [np.array([piece[i] for piece in drawn], np.int64) for i in range(3)]
    return OwnedRanges(columns[0], columns[1], columns[2], num_owners)


@given(
    seed=st.integers(0, 2**16),
    k=st.integers(1, 40),
    pieces=st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 2)).map(
            lambda piece: (min(piece[:2]), max(piece[:2]), piece[2])
        ),
        max_size=6,
    ),
    sold=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)
def test_the_best_of_each_slice_by_its_owners_query_are_those_that_sorting_finds(
    seed: int, k: int, pieces: list[tuple[int, int, int]], sold: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(200, 4)).astype(np.float32)
    queries = rng.normal(size=(3, 4)).astype(np.float32)
    unavailable = rng.random(200) < sold
    found = ItemVectors(vectors).best_of_each(queries, k, slices(pieces, 3), unavailable)
    expected: list[int] = []
    for start, end, owner in pieces:
        expected += by_sorting(vectors, queries[owner], k, np.arange(start, end), unavailable)
    assert sorted(found.tolist()) == sorted(expected)


def test_nothing_is_the_best_of_nothing(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    no_rows = np.empty(0, np.int64)
    found = ItemVectors(vectors).best_of_each(queries[:1], 5, OwnedRanges.of([RowRanges(no_rows, no_rows)]), FREE)
    assert found.dtype == np.int64
    assert len(found) == 0


FLAT = records_pb2.VectorIndex(dim=2, kind="flat")
IVF = records_pb2.VectorIndex(dim=2, kind="ivf", num_lists=1, num_probes=1, category_list_offsets=[0, 1])


def test_a_file_of_the_wrong_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnavailable, match=r"item_vectors\.npy: cannot be mapped"):
        ItemVectors.open(tmp_path, FLAT)
    np.save(tmp_path / layout.ITEM_VECTORS, np.zeros((3, 2), np.float64))
    with pytest.raises(SnapshotUnavailable, match="found float64"):
        ItemVectors.open(tmp_path, FLAT)
    np.save(tmp_path / layout.ITEM_VECTORS, np.zeros((3, 2), np.float32))
    with pytest.raises(SnapshotUnavailable, match="found 'hnsw', expected 'flat' or 'ivf'"):
        ItemVectors.open(tmp_path, records_pb2.VectorIndex(dim=2, kind="hnsw"))
    with pytest.raises(SnapshotUnavailable, match=r"items\.faiss: cannot be read"):
        ItemVectors.open(tmp_path, IVF)
    some = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    index, _ = ivf_of(some, 1, np.array([0, 20], np.int64))
    faiss.write_index(index, str(tmp_path / layout.ITEM_INDEX))
    with pytest.raises(SnapshotUnavailable, match=r"found 20 .* 2, .* expected at most 3 "):
        ItemVectors.open(tmp_path, IVF)
    np.save(tmp_path / layout.ITEM_VECTORS, some)
    assert len(ItemVectors.open(tmp_path, IVF).vectors) == 20
    two = records_pb2.VectorIndex(dim=2, kind="ivf", num_lists=2, num_probes=1, category_list_offsets=[0, 2])
    with pytest.raises(SnapshotUnavailable, match=r"items\.faiss: found 1 lists, expected 2 by the manifest"):
        ItemVectors.open(tmp_path, two)


def test_an_index_is_read_from_the_snapshot(
    tmp_path: Path, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    # Vectors the other way round show that it was the index which was asked.
    index, said = ivf_of(-vectors)
    said.num_probes = said.num_lists
    np.save(tmp_path / layout.ITEM_VECTORS, vectors)
    faiss.write_index(index, str(tmp_path / layout.ITEM_INDEX))
    read = ItemVectors.open(tmp_path, said)
    store = ItemVectors(read.vectors, ivf=read._ivf, exact_below=0)
    assert read._ivf is not None
    for query in queries:
        farthest = by_sorting(-vectors, query, 20, ranges_of(3, 6).rows())
        assert len(set(find(store, query, 60, (3, 6))) & set(farthest)) >= 18


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS can use a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / layout.ITEM_VECTORS, np.zeros((3, 2), np.float32))
    with pytest.raises(SnapshotUnavailable, match="install faiss-gpu"):
        ItemVectors.open(tmp_path, FLAT, gpu=True)
