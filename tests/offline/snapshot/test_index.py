"""The index for open search."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from serendipity.offline.snapshot.index import IndexConfig, build_index


def _clustered(n: int, dim: int = 16) -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(40, dim))
    return (centres[rng.integers(40, size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


def test_small_catalogues_are_searched_exactly() -> None:
    built = build_index(_clustered(300), _clustered(10))
    assert built.index is None
    assert (built.description.kind, built.description.dim, built.description.recall_at_100) == ("flat", 16, 1.0)


@pytest.mark.parametrize("min_recall", [0.5, 0.95, 1.0])
def test_large_catalogues_get_inverted_lists_whose_measured_recall_holds(min_recall: float) -> None:
    items = _clustered(6000)
    queries = _clustered(64) * 0.7
    config = IndexConfig(exact_below=1000, num_lists=128, min_recall=min_recall)
    built = build_index(items, queries, config)
    said = built.description
    assert (said.kind, said.num_lists) == ("ivf", 128)
    assert said.recall_at_100 >= min_recall
    # Measured again, independently, at the probes the manifest names.
    parameters = faiss.SearchParametersIVF()
    parameters.nprobe = said.num_probes
    found = built.index.search(queries, 100, params=parameters)[1]
    exact = np.argsort(-(queries @ items.T), axis=1, kind="stable")[:, :100]
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert said.recall_at_100 == pytest.approx(recall, abs=0.001)


def test_more_recall_costs_more_probes() -> None:
    items, queries = _clustered(6000), _clustered(64)
    probes = [
        build_index(items, queries, IndexConfig(exact_below=1, num_lists=256, min_recall=recall)).description.num_probes
        for recall in (0.3, 1.0)
    ]
    assert probes[0] < probes[1] <= 256


def test_the_same_vectors_give_the_same_index() -> None:
    items, queries = _clustered(3000), _clustered(32)
    config = IndexConfig(exact_below=1)
    first, second = (faiss.serialize_index(build_index(items, queries, config).index) for _ in range(2))
    assert np.array_equal(first, second)
