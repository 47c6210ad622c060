"""Texts about items, clustered by their words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from serendipity.interests.text import clean_text
from serendipity.offline.graph.served_graph import NONE_HELD

_WORD = r"[^\W\d_]{3,}"
"""Words without digits, and no units: what comes by the pound would be an interest of its own."""

_REDUCED = 64
_ITERATIONS = 20
_TERMS = 3
"""Terms of a name."""

# The stubs in the wheel miss what its Python layer adds.
_faiss: Any = faiss


@dataclass(frozen=True)
class ClusteredTexts:
    """What is said of n items, in t distinct texts.

    texts: the t; of_items: [n, m] int32, texts of each item, −1 where there are fewer; terms: [t, terms] TF-IDF;
    reduced: [t, d] float32 of norm 1; words: the terms; weights: [t] int64, items of each text.
    """

    texts: tuple[str, ...]
    of_items: NDArray[np.int32]
    terms: sparse.csr_matrix
    reduced: NDArray[np.float32]
    words: NDArray[Any]
    weights: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(cls, said: Sequence[Sequence[str]], seed: int) -> ClusteredTexts:
        """Read what is said of each item."""
        numbers: dict[str, int] = {}
        of_items = np.full((len(said), max(map(len, said), default=1) or 1), -1, np.int32)
        for row, texts in enumerate(said):
            of_items[row, : len(texts)] = [numbers.setdefault(text, len(numbers)) for text in texts]
        weights = np.bincount(of_items[of_items >= 0], minlength=len(numbers))
        vectorizer = TfidfVectorizer(
            token_pattern=_WORD, ngram_range=(1, 2), max_df=0.8, sublinear_tf=True, dtype=np.float32
        )
        try:
            terms = vectorizer.fit_transform(numbers)
        except ValueError:  # nothing but stop words, or nothing at all
            nothing = sparse.csr_matrix((len(numbers), 0), dtype=np.float32)
            vectors = np.zeros((len(numbers), 1), np.float32)
            return cls(tuple(numbers), of_items, nothing, vectors, np.empty(0, object), weights)
        width = min(_REDUCED, min(terms.shape) - 1)
        reduced = TruncatedSVD(width, random_state=seed).fit_transform(terms) if width > 0 else terms.toarray()
        norms = np.linalg.norm(reduced, axis=1, keepdims=True)
        reduced = (reduced / np.maximum(norms, 1e-9)).astype(np.float32)
        words = vectorizer.get_feature_names_out()
        return cls(tuple(numbers), of_items, sparse.csr_matrix(terms), reduced, words, weights)

    def clusters(self, k: int, seed: int) -> NDArray[np.int32]:
        """Cluster the texts: [t], NONE_HELD for a text without a word, of which nothing is known."""
        if not self.terms.nnz:
            return np.full(len(self), NONE_HELD, np.int32)
        means = _faiss.Kmeans(
            self.reduced.shape[1], k, niter=_ITERATIONS, seed=seed, spherical=True, min_points_per_centroid=1
        )
        means.train(np.ascontiguousarray(self.reduced))
        labels: NDArray[np.int32] = means.index.search(self.reduced, 1)[1][:, 0].astype(np.int32)
        labels[np.diff(self.terms.indptr) == 0] = NONE_HELD
        return labels

    def item_clusters(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Give each item the clusters of its texts, each once: [n, m], NONE_HELD where there are fewer."""
        # What −1 leads to stands at the end.
        found: NDArray[np.int32] = np.sort(np.append(labels, NONE_HELD).astype(np.int32)[self.of_items], axis=1)
        found[:, 1:][found[:, 1:] == found[:, :-1]] = NONE_HELD
        return found

    def terms_of(self, labels: NDArray[np.int32], k: int) -> tuple[str, ...]:
        """Name each cluster by the terms of the highest mean TF-IDF over its items."""
        known = np.flatnonzero(labels != NONE_HELD)
        weights = self.weights[known].astype(np.float64)
        means = sparse.csr_matrix((weights, (labels[known], known)), shape=(k, len(self))) @ self.terms
        return tuple(_name(", ".join(_told(means[cluster], self.words)), cluster) for cluster in range(k))

    def most_said(self, labels: NDArray[np.int32], k: int) -> tuple[str, ...]:
        """Name each cluster by its text of the most items."""
        names: dict[int, str] = {}
        for text in np.argsort(-self.weights, kind="stable").tolist():
            names.setdefault(int(labels[text]), self.texts[text])
        return tuple(_name(names.get(cluster, ""), cluster) for cluster in range(k))


def _told(means: sparse.csr_matrix, words: NDArray[Any]) -> Iterator[str]:
    """Give the terms of one cluster, most telling first, none of which is a part of another."""
    told: list[str] = []
    for place in means.indices[np.argsort(-means.data, kind="stable")]:
        term = str(words[place])
        if not any(set(term.split()) & set(other.split()) for other in told):
            told.append(term)
            yield term
        if len(told) == _TERMS:
            return


def _name(text: str, cluster: int) -> str:
    return clean_text(text) or f"cluster {cluster}"
