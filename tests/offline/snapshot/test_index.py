"""The index for open search: kept apart by category, measured under what users may be shown."""

from __future__ import annotations

import dataclasses
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.inverted_lists import SEARCHED, search_lists
from serendipity.offline.snapshot.index import IndexConfig, Queries, build_index
from serendipity.v1 import records_pb2

CATEGORIES = 12


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Clustered items, sorted by category; some categories are small, one is empty, the last rows have none."""

    vectors: NDArray[np.float32]
    offsets: NDArray[np.int64]

    @property
    def categorised(self) -> int:
        return int(self.offsets[-1])


def _catalogue(n: int = 6_000, dim: int = 16) -> Catalogue:
    rng = np.random.default_rng(3)
    sizes = np.append(rng.multinomial(n - 53, rng.dirichlet(np.ones(CATEGORIES - 2))), [3, 0])
    centres = rng.normal(size=(CATEGORIES, dim))
    parts = [
        centre + 0.5 * rng.normal(size=(4, dim))[rng.integers(4, size=size)] + 0.3 * rng.normal(size=(size, dim))
        for centre, size in zip(centres, sizes, strict=True)
    ]
    vectors = np.concatenate([*parts, rng.normal(size=(50, dim))]).astype(np.float32)
    return Catalogue(vectors, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _queries(catalogue: Catalogue, count: int = 64, known: int = 3, seed: int = 4) -> Queries:
    """Users near some items, who may be shown all but a few categories."""
    rng = np.random.default_rng(seed)
    vectors = catalogue.vectors[rng.integers(catalogue.categorised, size=count)]
    allowed = np.ones((count, CATEGORIES + 1), np.bool_)
    for mask in allowed:
        mask[rng.choice(CATEGORIES, known, replace=False) + 1] = False
    return Queries((vectors + 0.2 * rng.normal(size=vectors.shape)).astype(np.float32), allowed)


def _build(
    catalogue: Catalogue, queries: Queries, num_lists: int = 0, min_recall: float = 0.95
) -> tuple[Any, records_pb2.VectorIndex]:
    config = IndexConfig(exact_below=1_000, num_lists=num_lists, min_recall=min_recall)
    built = build_index(catalogue.vectors, catalogue.offsets, queries, config)
    assert built.index is not None
    return built.index, built.description


def _lists(index: Any) -> list[list[int]]:
    """Rows of every list."""
    lists: Any = index.invlists
    return [faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).tolist() for i in range(index.nlist)]


def test_small_catalogues_are_searched_exactly() -> None:
    catalogue = _catalogue(300)
    built = build_index(catalogue.vectors, catalogue.offsets, _queries(catalogue))
    assert built.index is None
    said = built.description
    assert (said.kind, said.dim, said.recall_at_100) == ("flat", 16, 1.0)
    assert list(said.category_list_offsets) == []


def test_every_list_holds_items_of_one_category_and_every_item_is_in_one() -> None:
    catalogue = _catalogue()
    index, said = _build(catalogue, _queries(catalogue), num_lists=128)
    lists = _lists(index)
    offsets = list(said.category_list_offsets)
    assert len(offsets) == CATEGORIES + 1
    assert (offsets[0], offsets[-1]) == (0, said.num_lists)
    assert len(lists) == said.num_lists
    for category in range(CATEGORIES):
        rows = sorted(row for rows in lists[offsets[category] : offsets[category + 1]] for row in rows)
        assert rows == list(range(*catalogue.offsets[category : category + 2].tolist()))
    # Neither an empty category nor items without one have lists.
    assert offsets[-2:] == [said.num_lists] * 2
    assert sum(map(len, lists)) == catalogue.categorised


@pytest.mark.parametrize(
    ("asked", "expected"),
    # 0: the square root of 6,000.
    [(1, 1), (30, 30), (400, 400), (0, 77)],
)
def test_there_are_about_as_many_lists_as_asked_for(asked: int, expected: int) -> None:
    catalogue = _catalogue()
    _, said = _build(catalogue, _queries(catalogue), num_lists=asked)
    # Rounded category by category; each that has items has a list.
    assert abs(said.num_lists - expected) <= CATEGORIES


@pytest.mark.parametrize("min_recall", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("known", [0, 3, 9])
def test_large_catalogues_get_inverted_lists_whose_measured_recall_holds(min_recall: float, known: int) -> None:
    catalogue = _catalogue()
    queries = _queries(catalogue, known=known)
    index, said = _build(catalogue, queries, num_lists=128, min_recall=min_recall)
    assert said.kind == "ivf"
    assert said.recall_at_100 >= min_recall
    # Measured again, independently, with as many items read as the manifest names probes for.
    lists, offsets = _lists(index), list(said.category_list_offsets)
    centroids = faiss.downcast_index(index.quantizer).reconstruct_n(0, said.num_lists)
    category_of = np.repeat(np.arange(1, CATEGORIES + 1), np.diff(offsets))
    least = max(SEARCHED, said.num_probes * len(catalogue.vectors) // said.num_lists)
    recalls = []
    for query, allowed in zip(queries.vectors, queries.allowed, strict=True):
        read: list[int] = []
        for i in np.argsort(-(centroids @ query)).tolist():
            if allowed[category_of[i]] and sum(len(lists[j]) for j in read) < least:
                read.append(i)
        found = search_lists(index, query, np.array(read), SEARCHED)
        assert set(found.tolist()) <= {row for i in read for row in lists[i]}
        numbers = np.searchsorted(catalogue.offsets, np.arange(catalogue.categorised), side="right")
        rows = np.flatnonzero(allowed[numbers])
        exact = rows[np.argsort(-(catalogue.vectors[rows] @ query))[:100]]
        recalls.append(float(np.isin(exact, found).mean()))
    assert said.recall_at_100 == pytest.approx(float(np.mean(recalls)), abs=0.001)


def test_more_recall_costs_more_probes() -> None:
    catalogue = _catalogue()
    probes = [
        _build(catalogue, _queries(catalogue), num_lists=256, min_recall=recall)[1].num_probes for recall in (0.3, 1.0)
    ]
    assert probes[0] < probes[1] <= 256 + CATEGORIES


def test_without_anybody_to_measure_with_recall_is_taken_as_whole() -> None:
    catalogue = _catalogue()
    nobody = Queries(np.empty((0, 16), np.float32), np.ones((0, CATEGORIES + 1), np.bool_))
    knows_all = Queries(catalogue.vectors[:2], np.zeros((2, CATEGORIES + 1), np.bool_))
    for queries in (nobody, knows_all):
        _, said = _build(catalogue, queries, num_lists=64)
        assert (said.kind, said.recall_at_100, said.num_probes) == ("ivf", 1.0, 8)


def test_the_same_vectors_give_the_same_index() -> None:
    catalogue = _catalogue(3_000)
    queries = _queries(catalogue, 32)
    first, second = (_build(catalogue, queries) for _ in range(2))
    assert np.array_equal(faiss.serialize_index(first[0]), faiss.serialize_index(second[0]))
    assert first[1] == second[1]


def test_a_catalogue_without_categories_gets_no_index() -> None:
    catalogue = _catalogue()
    nobody = Queries(np.empty((0, 16), np.float32), np.ones((0, 1), np.bool_))
    built = build_index(catalogue.vectors, np.zeros(1, np.int64), nobody, IndexConfig(exact_below=1))
    assert (built.index, built.description.kind) == (None, "flat")
